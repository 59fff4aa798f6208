import Communication
import Foundation
import Imaging
import Support
import Synchronization
import TensorCore

/// The stored bytes of a source's items, and the fingerprints computed from them.
///
/// The fingerprint covers the name, the size and all bytes of each item, so all bytes are read once.
/// ``ImageSource/readContent(on:)`` distributes that over the ranks; otherwise they are read on the first use
/// of the fingerprint.
package final class SourceContent: Sendable {
    /// The digest of an item that cannot be read. Its error is reported when it is decoded.
    private static let unreadable = UInt64.max

    typealias Reader =
        @Sendable (_ index: Int, _ body: (UnsafeRawBufferPointer) -> Void) throws(ImageError) -> Void

    package let count: Int
    private let name: @Sendable (Int) -> String
    private let size: @Sendable (Int) -> Int
    private let read: Reader
    /// CRC-32C of each item; nil until they have been read.
    private let digests = Mutex<[UInt64]?>(nil)

    /// - Parameter read: calls its body with an item's bytes in pieces.
    init(
        count: Int, name: @escaping @Sendable (Int) -> String, size: @escaping @Sendable (Int) -> Int,
        read: @escaping Reader
    ) {
        (self.count, self.name, self.size, self.read) = (count, name, size, read)
    }

    /// The fingerprint of all bytes. Reads them if necessary.
    package var fingerprint: String {
        let known = digests.withLock { $0 } ?? (try? digest(0..<count))
        // A storage fault changes the fingerprint, but only this time: `readContent` reads again and reports it.
        if let known { take(known) }
        let digests = known ?? Array(repeating: Self.unreadable, count: count)
        var hash = SourceFingerprint()
        hash.add(count)
        for index in 0..<count {
            hash.add(name(index))
            hash.add(size(index))
            hash.add(Int(bitPattern: UInt(digests[index])))
        }
        return SourceFingerprint.prefix + hash.text
    }

    /// The fingerprint by the rule of earlier versions.
    var sampledFingerprint: String {
        SourceFingerprint.sampled(count: count, name: name, size: size) { index in
            var bytes: [UInt8] = []
            do throws(ImageError) {
                try read(index) { bytes += $0 }
            } catch {
                return nil
            }
            return bytes
        }
    }

    /// Total bytes of all items.
    var byteCount: Int { (0..<count).reduce(0) { $0 &+ size($1) } }

    /// Computes the digests of some items, on all threads of this process.
    fileprivate func digest(_ items: Range<Int>) throws -> [UInt64] {
        var digests = [UInt64](repeating: 0, count: items.count)
        try digests.withUnsafeMutableBufferPointer { digests in
            let digests = digests
            try Processor.concurrently(items.count) { place in
                digests[place] = try digest(items.lowerBound + place)
            }
        }
        return digests
    }

    private func digest(_ index: Int) throws(ImageError) -> UInt64 {
        var checksum = CRC32C()
        do throws(ImageError) {
            try read(index) { checksum.update($0) }
        } catch {
            if StorageFault.includes(error.code) { throw error }
            return Self.unreadable
        }
        return UInt64(checksum.value)
    }

    fileprivate func take(_ digests: [UInt64]) {
        if digests.count == count { self.digests.withLock { $0 = digests } }
    }

    fileprivate var isRead: Bool { digests.withLock { $0 != nil } }
}

extension ImageSource {
    /// Whether this source has the given fingerprint, of the current or an earlier version.
    package func hasFingerprint(_ text: String) -> Bool {
        text == (text.hasPrefix(SourceFingerprint.prefix) ? fingerprint : sampledFingerprint)
    }

    /// Reads each item once to compute the fingerprint; each rank reads a share. Collective.
    ///
    /// - Throws: storage errors. Other items that cannot be read are reported when they are decoded.
    package func readContent(on communicator: Communicator) throws {
        let began = monotonicSeconds()
        let own = try communicator.collectively("reading \(name)") {
            guard let content, !content.isRead else { return [UInt64]() }
            let first = content.count * communicator.rank / communicator.size
            let end = content.count * (communicator.rank + 1) / communicator.size
            return try asDatasetError { try content.digest(first..<end) }
        }
        let bytes = own.withUnsafeBytes { [UInt8]($0) }
        let all = try communicator.allGather(bytes).flatMap { part in
            part.withUnsafeBytes { raw in
                (0..<raw.count / 8).map { raw.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) }
            }
        }
        guard let content, !all.isEmpty else { return }
        // Ranks that see different sources keep different digests, which the comparison of fingerprints
        // detects.
        content.take(all)
        let seconds = monotonicSeconds() - began
        if communicator.isRoot, seconds > 5 {
            printLine(
                "Read all of \(name) for its fingerprint: \(content.count) items, "
                    + dataRate(content.byteCount, seconds))
        }
    }
}

/// Example: "2.70 GB in 1.2 s, 2.25 GB/s"
func dataRate(_ bytes: Int, _ seconds: Double) -> String {
    let gigabytes = Double(bytes) / 1e9
    return String(format: "%.3g GB in %.1f s, %.2f GB/s", gigabytes, seconds, gigabytes / max(seconds, 1e-9))
}
