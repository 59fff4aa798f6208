import CKernels
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
    package var text: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}
