import Support
import FileFormats
import Foundation
import TensorCore

extension ModelFolder {
    /// Loads the folder's weights into a model's parameters, converted to fp32 from F16, BF16 or F64. Nothing
    /// is loaded unless all tensors match.
    ///
    /// Attention weights may have diffusers' old names (`query`, `key`, `value`, `proj_attn`) and the shape
    /// of 1×1 convolutions, [C, C, 1, 1].
    ///
    /// - Throws: `ModelFolderError` that lists all mismatched tensors, or `SafetensorsError`.
    package func loadWeights(into store: ParameterStore) throws {
        try WeightLoading.load(WeightFiles(path: path), into: store)
    }

    /// diffusers' names of weight files: a single file, or numbered shards.
    package static func shardName(_ index: Int, of count: Int) -> String {
        if count == 1 { return weightsFile }
        return
            "diffusion_pytorch_model-\(padded(index + 1, digits: 5))-of-\(padded(count, digits: 5)).safetensors"
    }
}

/// Matches named tensors with a model's parameters, and copies them in.
package enum WeightLoading {
    /// Names of attention layers before and after diffusers 0.14.
    private static let renamed = [
        ("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"),
    ]

    /// Translates an old tensor name to the current one.
    package static func presentName(_ name: String) -> String {
        for (old, new) in renamed {
            for kind in ["weight", "bias"] where name.hasSuffix(".\(old).\(kind)") {
                return name.dropLast(old.count + kind.count + 1) + "\(new).\(kind)"
            }
        }
        return name
    }

    /// Loads all parameters of a store; see `ModelFolder.loadWeights`.
    package static func load(_ files: some NamedTensors, into store: ParameterStore) throws {
        let sources = try match(files, store)
        try store.checkMemory(of: files.path)
        for parameter in store.parameters {
            if let name = sources[parameter.name] { try files.copyFloats(of: name, into: parameter.values) }
        }
        store.valuesChanged()
    }

    /// Maps each of a store's parameters, by name, to the file's tensor.
    ///
    /// - Throws: `ModelFolderError` that lists all mismatched tensors.
    static func match(_ files: some NamedTensors, _ store: ParameterStore) throws -> [String: String] {
        let expected = Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, $0) })
        var sources: [String: String] = [:]  // parameter name to tensor name in the file
        var error = ModelFolderError(files.path)
        for name in files.names {
            let target = expected[name] == nil ? presentName(name) : name
            guard let parameter = expected[target], sources[target] == nil else {
                error.unexpected.append(name)
                continue
            }
            sources[target] = name
            let info = try files.info(of: name)
            if !fits(info.shape, parameter) || !info.dtype.isFloatingPoint {
                error.misshapen.append(
                    "\(name) is \(info.dtype.rawValue) \(info.shape), expected \(parameter.shape)")
            }
        }
        error.missing = store.parameters.map(\.name).filter { sources[$0] == nil }
        guard error.missing.isEmpty, error.unexpected.isEmpty, error.misshapen.isEmpty else {
            error.detail = "the weights do not fit the model of \(store.parameters.count) tensors"
            throw error
        }
        return sources
    }

    /// Whether a tensor matches the parameter: the same shape, or a 1×1 convolution for a linear layer.
    private static func fits(_ shape: [Int], _ parameter: Parameter) -> Bool {
        shape == parameter.shape || parameter.shape.count == 2 && shape == parameter.shape + [1, 1]
    }
}

extension ParameterStore {
    /// Throws if a model's values alone exceed the host's memory. Call it before the values are first used,
    /// because a failed allocation would end the process.
    ///
    /// - Parameter source: the subject of the error message, such as the file that describes the model.
    package func checkMemory(of source: String? = nil) throws(ConfigError) {
        let (need, memory) = (Double(count) * 4, Double(ProcessInfo.processInfo.physicalMemory))
        if need <= memory { return }
        let gigabytes = { (bytes: Double) in String(format: "%.1f GB", bytes / 1e9) }
        throw ConfigError(
            .invalidValue,
            "a model of \(parameterCount) parameters takes \(gigabytes(need)), this machine has"
                + " \(gigabytes(memory)) of memory; choose a smaller model",
            location: source.map { ConfigNode.Location(source: $0) })
    }
}
