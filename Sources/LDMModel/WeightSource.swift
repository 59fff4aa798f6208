import FileFormats
import TensorCore

/// The format of written weights: their type, and whether they are in one file or in shards.
package struct WeightFormat: Sendable, Equatable {
    /// F32, F16 or BF16.
    package var dtype: SafetensorsDType
    /// Limit on the bytes of tensors in one file, unless a single tensor exceeds it; nil for one file.
    package var maxShardBytes: Int?

    package init(dtype: SafetensorsDType = .f32, maxShardBytes: Int? = nil) {
        self.dtype = dtype
        self.maxShardBytes = maxShardBytes
    }
}

/// A model's tensors to be written to files, from any source of values; one tensor is in memory at a time.
struct WeightSource {
    /// Sorted, with diffusers' current names.
    let tensors: [(name: String, shape: [Int])]
    /// The source of the values, for error messages.
    let path: String
    /// Copies the named tensor's values to a buffer of exactly its number of elements.
    private let copy: (_ name: String, _ destination: UnsafeMutableBufferPointer<Float>) throws -> Void

    /// The values of a store, or others in its layout (an average of the weights).
    init(_ store: ParameterStore, values: UnsafePointer<Float>? = nil) {
        let base = values ?? UnsafePointer(store.values)
        let offsets = Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, $0.offset) })
        tensors = Self.table(store)
        path = "the weights"
        copy = { name, destination in
            guard let offset = offsets[name] else { preconditionFailure("no parameter \(name)") }
            _ = destination.update(
                fromContentsOf: UnsafeBufferPointer(start: base + offset, count: destination.count))
        }
    }

    /// The values of weight files, each of which must contain all parameters of `store`; the store itself
    /// remains empty.
    ///
    /// - Throws: `ModelFolderError` that lists all mismatched tensors.
    init(_ mixture: WeightMixture, fitting store: ParameterStore) throws {
        let parts = try mixture.parts.map { part in
            let files = try WeightFiles(path: part.folder.path)
            return (files: files, names: try WeightLoading.match(files, store), factor: part.factor)
        }
        tensors = Self.table(store)
        path = mixture.parts.count == 1 ? mixture.parts[0].folder.path : mixture.name
        copy = { name, destination in
            func copyPart(_ index: Int) throws {
                try parts[index].files.copyFloats(of: parts[index].names[name] ?? name, into: destination)
            }
            if parts.count == 1, parts[0].factor == 1 { return try copyPart(0) }
            // Sum in double precision: factors may be large and of both signs, so fp32 would lose digits.
            var sums = [Double](repeating: 0, count: destination.count)
            for (index, part) in parts.enumerated() {
                try copyPart(index)
                for i in sums.indices { sums[i] += part.factor * Double(destination[i]) }
            }
            for i in sums.indices { destination[i] = Float(sums[i]) }
        }
    }

    /// Named tensors, which must be all parameters of `store`; the store itself remains empty.
    ///
    /// - Throws: `ModelFolderError` that lists all mismatched tensors.
    init(_ source: some NamedTensors, fitting store: ParameterStore) throws {
        let names = try WeightLoading.match(source, store)
        tensors = Self.table(store)
        path = source.path
        copy = { name, destination in try source.copyFloats(of: names[name] ?? name, into: destination) }
    }

    /// Copies all tensors into the store.
    func load(into store: ParameterStore) throws {
        try store.checkMemory(of: path)
        for parameter in store.parameters { try copy(parameter.name, parameter.values) }
        store.valuesChanged()
    }

    private static func table(_ store: ParameterStore) -> [(name: String, shape: [Int])] {
        store.parameters.map { ($0.name, $0.shape) }.sorted { $0.name < $1.name }
    }

    /// Writes the tensors to a folder under diffusers' names: `diffusion_pytorch_model.safetensors`, or
    /// numbered shards with an index.
    func write(to folder: ModelFolder, _ format: WeightFormat) throws {
        let shards = Self.shards(
            tensors.map { SafetensorsEntry($0.name, dtype: format.dtype, shape: $0.shape) },
            format.maxShardBytes)
        let largest = tensors.map { $0.shape.reduce(1, *) }.max() ?? 0
        let buffer = UnsafeMutableBufferPointer<Float>.allocate(capacity: largest)
        defer { buffer.deallocate() }
        var map: [String: String] = [:]
        var bytes = 0
        for (index, shard) in shards.enumerated() {
            let name = ModelFolder.shardName(index, of: shards.count)
            // diffusers rejects a file whose metadata does not name the framework.
            var writer = try SafetensorsWriter(
                path: folder.file(name), tensors: shard, metadata: ["format": "pt"])
            for tensor in shard {
                let values = UnsafeMutableBufferPointer(rebasing: buffer[..<tensor.shape.reduce(1, *)])
                try copy(tensor.name, values)
                try check(values, tensor)
                try writer.append(tensor.name, floats: UnsafeBufferPointer(values))
                map[tensor.name] = name
                bytes += values.count * format.dtype.size
            }
            try writer.finish()
        }
        if shards.count > 1 {
            try SafetensorsIndex(weightMap: map, totalSize: bytes)
                .write(to: folder.file(ModelFolder.weightsFile + ".index.json"))
        }
    }

    /// Throws if a value would overflow to infinity: the largest fp16 value is 65504.
    private func check(_ values: UnsafeMutableBufferPointer<Float>, _ tensor: SafetensorsEntry) throws {
        guard tensor.dtype == .f16, let value = values.first(where: { abs($0) >= 65520 && $0.isFinite })
        else {
            return
        }
        throw ModelFolderError(
            path, "\(tensor.name) has the value \(value), which fp16 cannot hold; choose bf16 or fp32")
    }

    /// Fills the shards in tensor order, as diffusers does.
    private static func shards(_ tensors: [SafetensorsEntry], _ limit: Int?) -> [[SafetensorsEntry]] {
        guard let limit else { return [tensors] }
        var shards: [[SafetensorsEntry]] = [[]]
        var size = 0
        for tensor in tensors {
            let bytes = tensor.shape.reduce(1, *) * tensor.dtype.size
            if size > 0, size + bytes > limit {
                shards.append([])
                size = 0
            }
            shards[shards.count - 1].append(tensor)
            size += bytes
        }
        return shards
    }
}
