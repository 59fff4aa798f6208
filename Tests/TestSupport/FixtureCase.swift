import FileFormats
import Foundation
import LDMModel

// docs/fixtures.md describes the layout of each kind.

/// The subject of a golden case, as named in its `case.json`.
package enum FixtureKind: String, CaseIterable, Sendable {
    case unet
    case autoencoderKL = "autoencoder_kl"
    case vqModel = "vq_model"
    case scheduler, ddim, training
}

/// An invalid case; the description is one line.
package struct FixtureError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ path: String, _ message: String) { description = "\(path): \(message)" }
}

/// A golden case: a folder whose `case.json` names its kind, with tensors computed by PyTorch and diffusers.
package struct FixtureCase: Sendable, CustomStringConvertible {
    /// The folder's path relative to the searched folder.
    package let name: String
    package let path: String
    package let kind: FixtureKind
    /// The content of `case.json`.
    package let settings: FixtureSettings
    /// All safetensors files in the folder except the model's weights, `case.safetensors` first.
    let files: [SafetensorsFile]

    static let settingsFile = "case.json"
    static let tensorsFile = "case.safetensors"

    package var description: String { name }

    /// Reads `case.json` and the headers of the tensor files.
    init(path: String, name: String) throws {
        self.path = path
        self.name = name
        let file = (path as NSString).appendingPathComponent(Self.settingsFile)
        settings = FixtureSettings(try ConfigNode(jsonFile: file).json, file: file)
        let found = try settings.string(["kind"])
        guard let kind = FixtureKind(rawValue: found) else {
            let kinds = FixtureKind.allCases.map(\.rawValue).joined(separator: ", ")
            throw FixtureError(file, "kind is '\(found)', expected one of \(kinds)")
        }
        self.kind = kind
        let names = try FileManager.default.contentsOfDirectory(atPath: path).filter {
            $0.hasSuffix(".safetensors") && !$0.hasPrefix("diffusion_pytorch_model")
        }
        files = try names.sorted { $0 == Self.tensorsFile || ($1 != Self.tensorsFile && $0 < $1) }
            .map { try SafetensorsFile(path: (path as NSString).appendingPathComponent($0)) }
        guard !files.isEmpty else {
            throw FixtureError(path, "has no \(Self.tensorsFile), expected the golden tensors in it")
        }
    }

    // MARK: Parts

    /// The model: in the case's own folder, or in one of these subfolders.
    package func model(_ below: String...) throws -> ModelFolder {
        ModelFolder((try part(ModelFolder.configFile, below) as NSString).deletingLastPathComponent)
    }

    /// The scheduler's configuration: `scheduler/scheduler_config.json`, `scheduler_config.json`, or the
    /// settings in `case.json`; a training case without any uses diffusers' defaults.
    package func scheduler() throws -> SchedulerConfig {
        do {
            return try SchedulerConfig(contentsOf: try part("scheduler_config.json", ["scheduler"]))
        } catch let error as FixtureError {
            guard kind == .training else { throw error }
            return try settings.scheduler()
        }
    }

    private func part(_ file: String, _ below: [String]) throws -> String {
        let candidates = (below.map { "\($0)/\(file)" } + [file])
        let found = candidates.map { (path as NSString).appendingPathComponent($0) }
            .first { FileManager.default.fileExists(atPath: $0) }
        guard let found else {
            throw FixtureError(path, "has no \(candidates.joined(separator: " or "))")
        }
        return found
    }

    // MARK: Tensors

    /// The first of these tensors that the case contains.
    package func find(_ names: [String]) -> FixtureTensor? {
        for name in names {
            for file in files where file.contains(name) { return FixtureTensor(file: file, name: name) }
        }
        return nil
    }

    /// A tensor by its name or one of its alternative names.
    package func tensor(_ names: [String]) throws -> FixtureTensor {
        guard let found = find(names) else { throw missing(names) }
        return found
    }

    /// Whether the case has a tensor.
    package func contains(_ name: String) -> Bool { find([name]) != nil }

    /// The tensors' names.
    package var tensorNames: [String] { files.flatMap(\.names) }

    /// The error for a missing tensor.
    package func missing(_ names: [String]) -> FixtureError {
        let known = tensorNames.filter { !$0.hasPrefix("grad.") && !$0.hasPrefix("param.") }.sorted()
        return FixtureError(
            path,
            "has no tensor '\(names[0])', which the kind \(kind.rawValue) needs (docs/fixtures.md); it has "
                + (known.prefix(12) + (known.count > 12 ? ["…"] : [])).joined(separator: ", "))
    }
}

/// A tensor of a case.
package struct FixtureTensor: Sendable {
    let file: SafetensorsFile
    package let name: String

    package func shape() throws -> [Int] { try file.info(of: name).shape }

    /// The values in the tensor's own layout.
    package func floats() throws -> [Float] {
        try file.info(of: name).dtype.isFloatingPoint
            ? file.floats(of: name) : file.integers(of: name).map(Float.init)
    }

    /// Row `row` of the first dimension.
    package func floats(row: Int) throws -> [Float] {
        let info = try file.info(of: name)
        guard info.dtype.isFloatingPoint, !info.shape.isEmpty else {
            let count = info.count / (info.shape.first ?? 1)
            return Array(try floats()[row * count..<(row + 1) * count])
        }
        return try file.floats(of: name, rows: row..<row + 1)
    }

    /// Integers, stored as an integer or floating-point type.
    package func integers() throws -> [Int] {
        guard try file.info(of: name).dtype.isFloatingPoint else { return try file.integers(of: name) }
        return try file.floats(of: name).map {
            guard let value = Int(exactly: $0) else {
                throw FixtureError(file.path, "tensor '\(name)' holds \($0), expected whole numbers")
            }
            return value
        }
    }

    /// Converts an image tensor [B, C, H, W] to [B, H, W, C].
    package func nhwc() throws -> (values: [Float], shape: [Int]) {
        let shape = try shape()
        guard shape.count == 4 else {
            throw FixtureError(file.path, "tensor '\(name)' is \(shape), expected [B, C, H, W]")
        }
        return (
            channelsLast(try floats(), batch: shape[0], channels: shape[1]),
            [shape[0], shape[2], shape[3], shape[1]]
        )
    }
}

/// Converts [B, C, …] to [B, …, C].
package func channelsLast(_ source: [Float], batch B: Int, channels C: Int) -> [Float] {
    let pixels = source.count / (B * C)
    var values: [Float] = []
    values.reserveCapacity(source.count)
    for b in 0..<B {
        for p in 0..<pixels {
            for c in 0..<C { values.append(source[(b * C + c) * pixels + p]) }
        }
    }
    return values
}
