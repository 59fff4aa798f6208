import CKernels
import Foundation

/// The checksum of checkpoint files, CRC-32C: finds every damaged bit of a disk or network, and costs less than
/// reading. It is no defence against somebody who changes a file on purpose.
package struct CRC32C: Sendable, Equatable {
    /// The checksum of the bytes so far.
    package private(set) var value: UInt32 = 0
    /// The number of bytes so far.
    package private(set) var count = 0

    package init() {}

    /// A checksum that is known, of so many bytes; nil unless `text` is eight hexadecimal digits in lower case.
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

    /// Appends bytes of which only the checksum is known.
    package mutating func append(_ other: CRC32C) {
        value = ck_crc32c_combine(value, other.value, other.count)
        count += other.count
    }

    package static func of(_ bytes: [UInt8]) -> CRC32C {
        var checksum = CRC32C()
        bytes.withUnsafeBytes { checksum.update($0) }
        return checksum
    }

    /// Eight hexadecimal digits.
    package var text: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}
