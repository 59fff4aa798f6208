import Foundation
import LDMModel

/// A folder that `disttrain prepare` wrote, open for reading: the manifest, and its shards mapped into memory.
///
/// Opening checks that every shard is there, has the size and the tensors that the manifest says, and reads no more
/// than their headers.
public final class PreparedFolder: Sendable {
    public let path: String
    public let manifest: PreparedManifest
    private let shards: [SafetensorsFile]
    /// The first sample of each shard.
    private let starts: [Int]
    /// The sample's class of every sample; empty where there are none.
    private let labels: [Int]

    public init(_ path: String) throws(DatasetError) {
        self.path = path
        let manifest = try PreparedManifest.read(folder: path)
        self.manifest = manifest
        var shards: [SafetensorsFile] = []
        var starts: [Int] = []
        var labels: [Int] = []
        var count = 0
        for entry in manifest.shards {
            let shard = try Self.open("\(path)/\(entry.name)", entry, manifest)
            shards.append(shard)
            starts.append(count)
            count += entry.count
            if !manifest.classNames.isEmpty {
                do { labels += try shard.integers(of: "label") } catch {
                    throw DatasetError(.damaged, "\(error); prepare the folder again")
                }
            }
        }
        guard labels.allSatisfy({ manifest.classNames.indices.contains($0) }) else {
            throw DatasetError(.damaged, "\(path): a label has no class name; prepare the folder again")
        }
        self.shards = shards
        self.starts = starts
        self.labels = labels
    }

    private static func open(
        _ file: String, _ entry: PreparedManifest.Shard, _ manifest: PreparedManifest
    ) throws(DatasetError) -> SafetensorsFile {
        let advice = "run `disttrain prepare` with the same options again: it makes only what is missing"
        var status = stat()
        guard stat(file, &status) == 0 else {
            throw DatasetError(.damaged, "\(file): \(String(cString: strerror(errno))); \(advice)")
        }
        guard Int(status.st_size) == entry.bytes else {
            throw DatasetError(
                .damaged,
                "\(file): \(status.st_size) bytes, expected \(entry.bytes): cut short or replaced; \(advice)")
        }
        do throws(SafetensorsError) {
            let shard = try SafetensorsFile(path: file)
            for tensor in manifest.tensors(count: entry.count) {
                try shard.expectShape(tensor.shape, of: tensor.name)
                let found = try shard.info(of: tensor.name).dtype
                if found != tensor.dtype {
                    throw SafetensorsError(
                        .mismatch, file,
                        "tensor '\(tensor.name)' is \(found.rawValue), expected \(tensor.dtype.rawValue)")
                }
            }
            return shard
        } catch {
            throw DatasetError(.damaged, "\(error); \(advice)")
        }
    }

    /// A hash of what the samples are made from, without reading them.
    public var fingerprint: String {
        contentHash(
            manifest.shards.map { "\($0.name) \($0.count) \($0.crc32)" } + [manifest.job.kind.rawValue])
    }

    /// The class of a sample as a place in the manifest's class names.
    public func label(_ index: Int) -> Int? { labels.isEmpty ? nil : labels[index] }

    /// Calls `body` with one sample of a tensor, as its bytes lie in the file.
    func withSample<Result>(
        _ tensor: String, _ index: Int, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        precondition((0..<manifest.count).contains(index), "sample \(index) of \(manifest.count)")
        let shard = shard(of: index)
        let samples = manifest.shards[shard].count
        return try shards[shard].withBytes(of: tensor) { bytes in
            let size = bytes.count / samples
            let start = (index - starts[shard]) * size
            return try body(UnsafeRawBufferPointer(rebasing: bytes[start..<start + size]))
        }
    }

    /// The last shard that starts at or before the sample, by bisection; empty shards start where the next does.
    private func shard(of index: Int) -> Int {
        var (low, high) = (0, starts.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= index { low = middle } else { high = middle }
        }
        return low
    }
}

extension PreparedManifest {
    /// The tensors of a shard of `count` samples, in the order of the file.
    func tensors(count: Int) -> [SafetensorsEntry] {
        Self.tensors(
            kind: job.kind, posterior: hasPosterior, flip: job.flip, labels: !classNames.isEmpty,
            shape: [count, height, width, channels])
    }

    static func tensors(
        kind: PrepareJob.Kind, posterior: Bool, flip: Bool, labels: Bool, shape: [Int]
    ) -> [SafetensorsEntry] {
        var names = posterior ? ["mean", "logvar"] : ["latent"]
        if flip { names += names.map { "\($0)_flipped" } }
        var entries =
            kind == .pixels
            ? [SafetensorsEntry("image", dtype: .u8, shape: shape)]
            : names.map { SafetensorsEntry($0, dtype: .f32, shape: shape) }
        if labels { entries.append(SafetensorsEntry("label", dtype: .i64, shape: [shape[0]])) }
        return entries
    }
}

/// A hash of texts, the same on any host: 16 hexadecimal digits.
func contentHash(_ texts: [String]) -> String {
    var hash = SourceFingerprint()
    for text in texts { hash.add(text) }
    return hash.text
}
