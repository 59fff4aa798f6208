import FileFormats
import Foundation
import Support

/// A folder written by `disttrain prepare`, open for reading: the manifest and its shards.
///
/// Opening checks that each shard exists and has the size and the tensors listed in the manifest; it reads
/// only headers and labels. All bytes of a shard are verified before its first sample is used.
package final class PreparedFolder: Sendable {
    package let path: String
    package let manifest: PreparedManifest
    private let shards: [ShardFile]
    private let verification: ShardVerification
    /// Index of the first sample of each shard.
    private let starts: [Int]
    /// The class of each sample; empty if there are no classes.
    private let labels: [Int]

    package init(_ path: String) throws(DatasetError) {
        self.path = path
        let manifest = try PreparedManifest.read(folder: path)
        self.manifest = manifest
        var shards: [ShardFile] = []
        var starts: [Int] = []
        var labels: [Int] = []
        var count = 0
        let pool = OpenShards()
        for entry in manifest.shards {
            shards.append(
                try ShardFile("\(path)/\(entry.name)", entry, manifest, pool, labels: &labels))
            starts.append(count)
            count += entry.count
        }
        guard labels.allSatisfy({ manifest.classNames.indices.contains($0) }) else {
            throw DatasetError(.damaged, "\(path): a label has no class name; prepare the folder again")
        }
        (self.shards, self.starts, self.labels) = (shards, starts, labels)
        verification = ShardVerification(shards)
    }

    deinit { verification.cancel() }

    /// Verifies all shards in the background, so that later steps need not wait for verification.
    ///
    /// - Parameter report: called with a line when all shards have been verified.
    package func verifyInBackground(report: @escaping @Sendable (String) -> Void) {
        verification.start { [path] summary in
            report(
                "Verified \(summary.shards) shards of \(path) against their checksums: "
                    + dataRate(summary.bytes, summary.seconds))
        }
    }

    /// A hash of all bytes, computed from the shards' checksums without reading them.
    package var fingerprint: String {
        contentHash(
            manifest.shards.map { "\($0.name) \($0.count) \($0.crc32)" } + [manifest.job.kind.rawValue])
    }

    /// The class name of each sample; nil if the folder has no labels.
    package var sampleClassNames: [String]? {
        labels.isEmpty ? nil : labels.map { manifest.classNames[$0] }
    }

    /// The class of a sample as an index into the manifest's class names.
    package func label(_ index: Int) -> Int? { labels.isEmpty ? nil : labels[index] }

    /// Calls `body` with the bytes of one sample of a tensor.
    package func withSample<Result>(
        _ tensor: String, _ index: Int, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        precondition((0..<manifest.count).contains(index), "sample \(index) of \(manifest.count)")
        let shard = shard(of: index)
        try verification.require(shard)
        let size = shards[shard].sampleBytes(tensor)
        return try withUnsafeTemporaryAllocation(byteCount: size, alignment: 64) { buffer in
            try shards[shard].read(tensor, index - starts[shard], into: buffer)
            return try body(UnsafeRawBufferPointer(buffer))
        }
    }

    /// Binary search for the last shard that starts at or before the sample; an empty shard has the same
    /// start as the next one.
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

/// A hash of texts, identical on all hosts: 16 hexadecimal digits.
package func contentHash(_ texts: [String]) -> String {
    var hash = SourceFingerprint()
    for text in texts { hash.add(text) }
    return hash.text
}
