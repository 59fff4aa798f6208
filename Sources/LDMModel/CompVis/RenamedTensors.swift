import FileFormats
import Support

/// Tensors of another library's checkpoint under diffusers' names.
struct RenamedTensors: NamedTensors {
    /// Where a tensor comes from.
    struct Origin: Sendable {
        let name: String
        /// Selects the query, key or value (0, 1, 2) of a combined projection whose rows are ordered by head,
        /// then query, key and value, with this number of channels for each.
        var part: (index: Int, headChannels: Int)?
    }

    let source: WeightFiles
    private var origins: [String: Origin] = [:]

    init(_ source: WeightFiles) { self.source = source }

    var path: String { source.path }
    var names: [String] { origins.keys.sorted() }

    /// Declares a tensor.
    mutating func add(_ name: String, from origin: Origin) { origins[name] = origin }

    func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        guard let origin = origins[name] else { throw missing(name) }
        let info = try source.info(of: origin.name)
        // Attention of CompVis is a 1×1 convolution in one dimension, [O, C, 1].
        var shape = info.shape.count == 3 && info.shape[2] == 1 ? Array(info.shape.dropLast()) : info.shape
        if let part = origin.part {
            guard let rows = shape.first, rows % (3 * part.headChannels) == 0 else {
                throw mismatch(info, "expected query, key and value of \(part.headChannels) channels each")
            }
            shape[0] = rows / 3
        }
        let bytes = shape.reduce(1, *) * info.dtype.size
        return SafetensorsInfo(name: name, dtype: info.dtype, shape: shape, byteRange: 0..<bytes)
    }

    func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        guard let origin = origins[name] else { throw missing(name) }
        guard let part = origin.part else { return try source.copyFloats(of: origin.name, into: destination) }
        // [heads · 3 · headChannels, rest] to [heads · headChannels, rest]
        let info = try source.info(of: origin.name)
        let values = try source.floats(of: origin.name)
        let block = part.headChannels * info.rowCount
        precondition(values.count == 3 * destination.count && values.count % (3 * block) == 0)
        for head in 0..<values.count / (3 * block) {
            let start = (3 * head + part.index) * block
            for i in 0..<block { destination[head * block + i] = values[start + i] }
        }
    }
}

/// The names of a module in a checkpoint, and diffusers' names for them.
struct RenamedModule {
    let prefix: String
    private(set) var tensors: RenamedTensors
    /// The names that have a counterpart.
    private var used: Set<String> = []
    private let names: Set<String>
    private let replacements: [String: String]

    /// - Parameters:
    ///   - prefix: of the module's names in the checkpoint, such as "model.diffusion_model.".
    ///   - names: all names of the module, with the prefix.
    ///   - replacements: tensors to read instead of those of a name: an average.
    init(
        _ source: WeightFiles, prefix: String, names: Set<String>, replacements: [String: String] = [:]
    ) {
        (self.prefix, self.names, self.replacements) = (prefix, names, replacements)
        tensors = RenamedTensors(source)
    }

    /// The module's names, without the prefix.
    func has(_ name: String) -> Bool { names.contains(prefix + name) }

    /// The shape of a tensor.
    ///
    /// - Throws: if it does not exist.
    func shape(_ name: String) throws -> [Int] { try tensors.source.info(of: prefix + name).shape }

    /// Maps weight and bias of a layer, if it exists.
    ///
    /// - Returns: whether it exists.
    @discardableResult mutating func layer(_ old: String, _ new: String) -> Bool {
        let found = ["weight", "bias"].filter { has("\(old).\($0)") }
        for kind in found { add("\(new).\(kind)", from: "\(old).\(kind)") }
        return !found.isEmpty
    }

    /// Maps a combined projection to those of query, key and value.
    mutating func projection(_ old: String, _ new: String, headChannels: Int) {
        for kind in ["weight", "bias"] where has("\(old).\(kind)") {
            for (index, part) in ["to_q", "to_k", "to_v"].enumerated() {
                add("\(new).\(part).\(kind)", from: "\(old).\(kind)", part: (index, headChannels))
            }
        }
    }

    private mutating func add(_ new: String, from old: String, part: (index: Int, headChannels: Int)? = nil) {
        let name = prefix + old
        used.insert(name)
        tensors.add(new, from: .init(name: replacements[name] ?? name, part: part))
    }

    /// Throws if tensors of the module have no counterpart.
    func checkComplete(as model: String) throws(ModelFolderError) {
        let rest = names.filter { !used.contains($0) }.sorted()
        if rest.isEmpty { return }
        throw ModelFolderError(
            tensors.path,
            "has \(rest.count) tensors without a counterpart in \(model): \(shortList(rest)); only"
                + " unconditional latent diffusion models can be converted")
    }
}
