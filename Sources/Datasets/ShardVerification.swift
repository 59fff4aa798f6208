import CZlib
import FileFormats
import Foundation
import Support

/// Verifies each shard of a prepared folder once against the checksums in its manifest, before its first
/// sample is used.
///
/// A low-priority thread verifies all shards. A shard that is needed earlier is verified by the thread that
/// needs it, so the first steps wait only for the shards that they read.
// Unchecked: the condition's lock guards all mutable state.
final class ShardVerification: @unchecked Sendable {
    /// The amount of verified data, and the time in seconds.
    struct Summary: Sendable {
        let shards: Int
        let bytes: Int
        let seconds: Double
    }

    private enum State { case pending, running, verified }

    private let files: [ShardFile]
    private let condition = NSCondition()
    private var states: [State]
    private var left: Int
    /// The first error; no shard can be used after it.
    private var failure: DatasetError?
    private var isCancelled = false
    private var startedAt: Double?

    init(_ files: [ShardFile]) {
        self.files = files
        states = Array(repeating: .pending, count: files.count)
        left = files.count
    }

    /// Returns when the shard has been verified, if necessary by this thread.
    func require(_ shard: Int) throws(DatasetError) {
        condition.lock()
        while states[shard] == .running, failure == nil { condition.wait() }
        if let failure {
            condition.unlock()
            throw failure
        }
        let isPending = states[shard] == .pending
        if isPending { states[shard] = .running }
        condition.unlock()
        if isPending { try verify(shard) }
    }

    /// Verifies the remaining shards on a separate thread.
    ///
    /// - Parameter whenDone: called once, on that thread, if no shard is damaged and ``cancel()`` was not
    ///   called before.
    func start(whenDone: @escaping @Sendable (Summary) -> Void) {
        condition.withLock { startedAt = monotonicSeconds() }
        let thread = Thread { [self] in
            // On Linux this only affects the calling thread. Training has priority.
            _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
            for shard in files.indices {
                guard condition.withLock({ !isCancelled && failure == nil }) else { return }
                // `failure` keeps the error for users of the folder.
                if condition.withLock({ claim(shard) }) { try? verify(shard) }
            }
            if let summary = waitForOthers() { whenDone(summary) }
        }
        thread.name = "shard verification"
        thread.start()
    }

    /// Stops the thread after its current shard.
    func cancel() {
        condition.withLock {
            isCancelled = true
            condition.broadcast()
        }
    }

    private func claim(_ shard: Int) -> Bool {
        guard states[shard] == .pending else { return false }
        states[shard] = .running
        return true
    }

    private func waitForOthers() -> Summary? {
        condition.withLock {
            while left > 0, failure == nil, !isCancelled { condition.wait() }
            guard left == 0 else { return nil }
            return Summary(
                shards: files.count, bytes: files.reduce(0) { $0 + $1.entry.bytes },
                seconds: monotonicSeconds() - (startedAt ?? monotonicSeconds()))
        }
    }

    /// Verifies a shard that this thread has claimed.
    private func verify(_ shard: Int) throws(DatasetError) {
        let outcome = Result { () throws(DatasetError) in try files[shard].verify() }
        condition.withLock {
            switch outcome {
            case .success:
                states[shard] = .verified
                left -= 1
            case .failure(let error): failure = failure ?? error
            }
            condition.broadcast()
        }
        try outcome.get()
    }
}

/// One shard of a prepared folder: the byte ranges of its tensors, and access to its bytes.
///
/// Files are opened on demand and at most ``OpenShards/limit`` are kept open, because a dataset of a million
/// images has 4,000 shards.
final class ShardFile: Sendable {
    let path: String
    let entry: PreparedManifest.Shard
    /// Byte range of each tensor in the file.
    private let tensors: [String: Range<Int>]
    private let identity: PositionedFile.Identity
    private let pool: OpenShards

    static let advice =
        "run `disttrain prepare` with the same options again: only missing or damaged shards are written"

    /// Opens a shard and checks its size and header; fills `labels` from the tensor of that name, if one is
    /// expected.
    init(
        _ path: String, _ entry: PreparedManifest.Shard, _ manifest: PreparedManifest, _ pool: OpenShards,
        labels: inout [Int]
    ) throws(DatasetError) {
        (self.path, self.entry, self.pool) = (path, entry, pool)
        do {
            let file = try PositionedFile(path)
            guard file.size == entry.bytes else {
                throw DatasetError(
                    .damaged,
                    "\(path): \(file.size) bytes, expected \(entry.bytes): truncated or replaced; \(Self.advice)"
                )
            }
            let shard = try SafetensorsFile(file)
            var tensors: [String: Range<Int>] = [:]
            for tensor in manifest.tensors(count: entry.count) {
                try shard.expectShape(tensor.shape, of: tensor.name)
                let info = try shard.info(of: tensor.name)
                if info.dtype != tensor.dtype {
                    throw SafetensorsError(
                        .mismatch, path,
                        "tensor '\(tensor.name)' is \(info.dtype.rawValue), expected \(tensor.dtype.rawValue)"
                    )
                }
                let start = shard.dataStart + info.byteRange.lowerBound
                tensors[tensor.name] = start..<start + info.byteRange.count
            }
            if !manifest.classNames.isEmpty { labels += try shard.integers(of: "label") }
            self.tensors = tensors
            identity = file.identity
        } catch let error as DatasetError {
            throw error
        } catch let error as FileError {
            throw Self.problem(error)
        } catch let error as SafetensorsError {
            throw DatasetError(.damaged, "\(error); \(Self.advice)", code: error.code)
        } catch {
            throw DatasetError(.damaged, "\(path): \(error)")
        }
    }

    /// Reads sample `index` of the shard into `buffer`.
    func read(_ tensor: String, _ index: Int, into buffer: UnsafeMutableRawBufferPointer) throws(DatasetError)
    {
        guard let range = tensors[tensor] else { preconditionFailure("\(path) has no tensor \(tensor)") }
        let file = try open()
        do throws(FileError) {
            try file.read(at: range.lowerBound + index * buffer.count, into: buffer)
        } catch {
            throw Self.problem(error)
        }
    }

    /// Bytes of one sample.
    func sampleBytes(_ tensor: String) -> Int { (tensors[tensor]?.count ?? 0) / max(1, entry.count) }

    /// Verifies the checksum of the whole file.
    fileprivate func verify() throws(DatasetError) {
        let file = try open()
        let name = entry.crc32c == nil ? "CRC-32" : "CRC-32C"
        var slow = crc32_z(0, nil, 0)
        var fast = CRC32C()
        do throws(FileError) {
            try file.readPieces(of: 0..<file.size) {
                if entry.crc32c != nil {
                    fast.update($0)
                } else {
                    slow = crc32_z(slow, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count)
                }
            }
        } catch {
            throw Self.problem(error)
        }
        let found = entry.crc32c == nil ? UInt32(truncatingIfNeeded: slow) : fast.value
        let expected = entry.crc32c ?? entry.crc32
        guard found == expected else {
            throw DatasetError(
                .damaged,
                "\(path): \(name) is \(String(format: "%08x", found)), expected \(String(format: "%08x", expected)): "
                    + "the file is damaged; \(Self.advice)")
        }
    }

    /// Opens the file; throws if it is no longer the file that was opened first.
    private func open() throws(DatasetError) -> PositionedFile {
        do throws(FileError) {
            let file = try pool.file(path)
            if file.identity == identity { return file }
        } catch {
            throw Self.problem(error)
        }
        throw DatasetError(.damaged, "\(path): was replaced while it was in use; start again")
    }

    private static func problem(_ error: FileError) -> DatasetError {
        let isTransient = StorageFault.includes(error.code)
        return DatasetError(
            .damaged, "\(error); " + (isTransient ? "the storage failed; start again" : advice),
            code: error.code)
    }
}

/// The most recently used shards, open.
// Unchecked: the lock guards all mutable state.
final class OpenShards: @unchecked Sendable {
    static let limit = 256

    private let lock = NSLock()
    /// Files with the turn of their last use.
    private var files: [String: (file: PositionedFile, turn: Int)] = [:]
    private var turn = 0

    func file(_ path: String) throws(FileError) -> PositionedFile {
        if let known = lock.withLock({ take(path) }) { return known }
        let file = try PositionedFile(path)
        lock.withLock {
            if files.count >= Self.limit, let oldest = files.min(by: { $0.value.turn < $1.value.turn })?.key {
                files[oldest] = nil
            }
            files[path] = (file, turn)
        }
        return file
    }

    private func take(_ path: String) -> PositionedFile? {
        turn += 1
        files[path]?.turn = turn
        return files[path]?.file
    }
}
