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
    package var text: String {
        let digits = String(state, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

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
