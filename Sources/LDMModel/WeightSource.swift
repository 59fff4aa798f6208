import FileFormats
import TensorCore

/// How weights are written: their type, and whether in one file or in shards.
package struct WeightFormat: Sendable, Equatable {
    /// F32, F16 or BF16.
    package var dtype: SafetensorsDType
    /// Most bytes of tensors in one file, but for a tensor that is larger by itself; nil for one file.
    package var maxShardBytes: Int?

    package init(dtype: SafetensorsDType = .f32, maxShardBytes: Int? = nil) {
        self.dtype = dtype
        self.maxShardBytes = maxShardBytes
    }
}

/// A model's tensors on their way into files, wherever their values are; one tensor is in memory at a time.
struct WeightSource {
    /// Under diffusers' present names, sorted.
    let tensors: [(name: String, shape: [Int])]
    /// Where the values come from, for error messages.
    let path: String
    /// Fills a buffer of exactly the tensor's elements.
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

    /// The values of weight files, each of which must hold what `store` declares; the store itself stays empty.
    ///
    /// - Throws: `ModelFolderError` that names all tensors that do not fit.
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
            // Factors may be large and of both signs: fp32 would lose digits.
            var sums = [Double](repeating: 0, count: destination.count)
            for (index, part) in parts.enumerated() {
                try copyPart(index)
                for i in sums.indices { sums[i] += part.factor * Double(destination[i]) }
            }
            for i in sums.indices { destination[i] = Float(sums[i]) }
        }
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

    /// Writes the tensors into a folder under diffusers' names: `diffusion_pytorch_model.safetensors`, or numbered
    /// shards with an index.
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
            // diffusers refuses a file that does not say which framework wrote it.
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

    /// Refuses what would become infinite: fp16 ends at 65504.
    private func check(_ values: UnsafeMutableBufferPointer<Float>, _ tensor: SafetensorsEntry) throws {
        guard tensor.dtype == .f16, let value = values.first(where: { abs($0) >= 65520 && $0.isFinite })
        else {
            return
        }
        throw ModelFolderError(
            path, "\(tensor.name) has the value \(value), which fp16 cannot hold; choose bf16 or fp32")
    }

    /// Fills shard after shard in the tensors' order, as diffusers does.
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
