/// A hash of what a source holds, the same on any host and at any path: no times, no absolute names. A folder and the
/// tar archive of it have the same fingerprint.
///
/// The hash is FNV-1a over 64-bit words (a byte at a time would be slow), 64 bits: it finds mistakes, and is no
/// defence against somebody who makes a collision on purpose.
package struct SourceFingerprint {
    /// Marks fingerprints of all bytes. Those of earlier versions, which cover the whole bytes of up to 64 items, are 16
    /// hexadecimal digits alone.
    package static let prefix = "v2-"
    private static let sampledItems = 64

    private var state: UInt64 = 0xCBF2_9CE4_8422_2325

    package init() {}

    private mutating func add(_ word: UInt64) {
        state = (state ^ word) &* 0x0000_0100_0000_01B3
        // FNV's multiplication carries upwards only; the shift lets high bits reach low ones, which words need.
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

    /// The fingerprint that versions before `SourceContent.prefix` wrote: of the name and the size of every item, and of
    /// the whole bytes of up to 64 items spread evenly.
    ///
    /// - Parameter bytes: nil for an item that cannot be read.
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
