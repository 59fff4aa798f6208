import CKernels
import COpenSSL
import Foundation

/// The CRC-32C checksum of checkpoint files. It detects corruption by disks and networks and costs less than
/// reading the file. It does not protect against deliberate changes.
package struct CRC32C: Sendable, Equatable {
    /// The checksum of the bytes so far.
    package private(set) var value: UInt32 = 0
    /// The number of bytes so far.
    package private(set) var count = 0

    package init() {}

    /// Creates a checksum from a known value over `count` bytes; nil unless `text` is eight lower-case
    /// hexadecimal digits.
    package init?(text: String, count: Int) {
        guard let value = UInt32(text, radix: 16) else { return nil }
        self.value = value
        self.count = count
        if self.text != text { return nil }
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        value = ck_crc32c(value, base, bytes.count)
        count += bytes.count
    }

    /// Appends bytes that are given only by their checksum.
    package mutating func append(_ other: CRC32C) {
        value = ck_crc32c_combine(value, other.value, other.count)
        count += other.count
    }

    package static func of(_ bytes: [UInt8]) -> CRC32C {
        var checksum = CRC32C()
        bytes.withUnsafeBytes { checksum.update($0) }
        return checksum
    }

    /// The value as eight lower-case hexadecimal digits.
    package var text: String { padded(value, digits: 8, radix: 16) }
}

/// SHA-256 (FIPS 180-4). Weights & Biases names images by it.
package enum SHA256 {
    /// The digest as 64 hexadecimal digits.
    package static func text(of bytes: [UInt8]) -> String {
        var digest = [UInt8](repeating: 0, count: 32)
        let isDone = EVP_Digest(bytes, bytes.count, &digest, nil, EVP_sha256(), nil) == 1
        precondition(isDone, "libcrypto has no SHA-256")
        return digest.map { padded($0, digits: 2, radix: 16) }.joined()
    }
}

/// 64-bit FNV-1a of a text: identical on all ranks, unlike Swift's seeded hash. It distinguishes texts; it does not
/// withstand deliberate collisions.
package func fnv1a(_ text: String) -> UInt64 {
    text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
}

/// A hash of a source's content that is the same on any host and at any path: it covers no times and no
/// absolute names. A folder and the tar archive of it have the same fingerprint.
///
/// The hash is 64-bit FNV-1a over 64-bit words (byte by byte would be slow). It detects mistakes, not
/// deliberate collisions.
package struct SourceFingerprint {
    /// Prefix of fingerprints that cover all bytes. Fingerprints of earlier versions, which cover the bytes
    /// of up to 64 items, are 16 hexadecimal digits without a prefix.
    package static let prefix = "v2-"
    private static let sampledItems = 64

    private var state: UInt64 = 0xCBF2_9CE4_8422_2325

    package init() {}

    private mutating func add(_ word: UInt64) {
        state = (state ^ word) &* 0x0000_0100_0000_01B3
        // FNV's multiplication propagates bits upwards only; with words instead of bytes, the shift is needed
        // to propagate high bits to low ones.
        state ^= state >> 32
    }

    package mutating func add(_ number: Int) { add(UInt64(bitPattern: Int64(number))) }

    package mutating func add(_ text: String) { add(Array(text.utf8)) }

    package mutating func add(_ bytes: [UInt8]) {
        add(bytes.count)
        bytes.withUnsafeBytes { raw in
            let words = raw.count / 8
            for index in 0..<words {
                add(UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)))
            }
            var rest: UInt64 = 0
            for byte in raw[(8 * words)...] { rest = rest << 8 | UInt64(byte) }
            add(rest)
        }
    }

    /// 16 hexadecimal digits.
    package var text: String { padded(state, digits: 16, radix: 16) }

    /// The fingerprint of versions before `SourceFingerprint.prefix`: it covers the name and the size of
    /// every item, and the bytes of up to 64 evenly spaced items.
    ///
    /// - Parameter bytes: returns nil for an item that cannot be read.
    package static func sampled(
        count: Int, name: (Int) -> String, size: (Int) -> Int, bytes: (Int) -> [UInt8]?
    ) -> String {
        var hash = SourceFingerprint()
        hash.add(count)
        for index in 0..<count {
            hash.add(name(index))
            hash.add(size(index))
        }
        let samples = min(count, sampledItems)
        for sample in 0..<samples { hash.add(bytes(sample * count / samples) ?? []) }
        return hash.text
    }
}

/// A fingerprint by the rule of earlier versions. It is computed lazily, only for comparison with a
/// checkpoint that holds such a fingerprint, because it reads files.
package struct EarlierFingerprint: Sendable, Equatable {
    private let compute: @Sendable () -> String

    package init(_ compute: @escaping @Sendable () -> String) { self.compute = compute }

    /// Whether `fingerprint` has the earlier format and matches the same data.
    package func matches(_ fingerprint: String) -> Bool {
        !fingerprint.hasPrefix(SourceFingerprint.prefix) && compute() == fingerprint
    }

    /// Always equal: datasets are compared by their current fingerprints.
    package static func == (a: EarlierFingerprint, b: EarlierFingerprint) -> Bool { true }
}
