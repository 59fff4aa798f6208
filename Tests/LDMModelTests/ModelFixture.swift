import Foundation
import LDMModel
import TensorCore

/// A golden case that Fixtures/make_models.py wrote with diffusers.
struct ModelFixture {
    let name: String
    let folder: ModelFolder
    let tensors: SafetensorsFile

    static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/models")

    init(_ name: String) throws {
        self.name = name
        let path = Self.root.appending(path: name).path
        folder = ModelFolder(path)
        tensors = try SafetensorsFile(path: path + "/case.safetensors")
    }

    /// Names of all cases of a kind.
    static func names(_ kind: String) -> [String] {
        let folders = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        return folders.sorted().filter { name in
            let file = root.appending(path: name + "/case.json")
            guard let text = try? String(contentsOf: file, encoding: .utf8) else { return false }
            return text.contains("\"kind\": \"\(kind)\"")
        }
    }

    func shape(_ tensor: String) throws -> [Int] { try tensors.info(of: tensor).shape }

    /// A tensor in its own layout.
    func floats(_ tensor: String) throws -> [Float] { try tensors.floats(of: tensor) }

    /// An image-like tensor, NCHW in the file, as [B, H, W, C].
    func nhwc(_ tensor: String) throws -> (values: [Float], shape: [Int]) {
        let source = try tensors.floats(of: tensor)
        let (B, C, H, W) = try { ($0[0], $0[1], $0[2], $0[3]) }(shape(tensor))
        var values: [Float] = []
        for b in 0..<B {
            for p in 0..<H * W {
                for c in 0..<C { values.append(source[(b * C + c) * H * W + p]) }
            }
        }
        return (values, [B, H, W, C])
    }
}

/// Largest difference over the largest expected magnitude (or `floor`, where that is larger).
func relativeError(_ found: [Float], _ expected: [Float], floor: Float = 0) -> Float {
    guard found.count == expected.count else { return .infinity }
    var (difference, magnitude) = (Float(0), floor)
    for (a, b) in zip(found, expected) {
        guard a.isFinite else { return .infinity }
        difference = max(difference, abs(a - b))
        magnitude = max(magnitude, abs(b))
    }
    return difference / max(magnitude, .leastNormalMagnitude)
}

/// The parameters' gradients that differ from the golden ones by more than `tolerance`. Some are zero but for
/// rounding (a key's bias, which softmax ignores), so small ones are measured against the largest of all.
func wrongGradients(_ store: ParameterStore, _ fixture: ModelFixture, tolerance: Float) throws -> [String] {
    var expected: [String: [Float]] = [:]
    for parameter in store.parameters {
        expected[parameter.name] = try fixture.floats("grad.\(parameter.name)")
    }
    let largest = expected.values.joined().reduce(Float(0)) { max($0, abs($1)) }
    var wrong: [String] = []
    for parameter in store.parameters {
        let error = relativeError(
            Array(parameter.gradient), expected[parameter.name] ?? [], floor: 1e-2 * largest)
        if error > tolerance { wrong.append("\(parameter.name): \(error)") }
    }
    return wrong
}

/// The values (or gradients) of all parameters by name.
func snapshot(
    _ store: ParameterStore, _ part: (Parameter) -> UnsafeMutableBufferPointer<Float> = { $0.values }
) -> [String: [Float]] {
    Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, Array(part($0))) })
}

/// Every backend of this build, for tests that run on each.
let backends = Backend.allCases.filter(\.isAvailable)

/// A folder that is removed at the end.
final class TemporaryFolder {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "model-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ text: String) throws {
        try Data(text.utf8).write(to: URL(filePath: path).appending(path: name))
    }
}
