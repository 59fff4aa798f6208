import CKernels
import Foundation

/// The checksum of checkpoint files, CRC-32C: finds every damaged bit of a disk or network, and costs less than
/// reading. It is no defence against somebody who changes a file on purpose.
public struct CRC32C: Sendable, Equatable {
    /// The checksum of the bytes so far.
    public private(set) var value: UInt32 = 0
    /// The number of bytes so far.
    public private(set) var count = 0

    public init() {}

    /// A checksum that is known, of so many bytes; nil unless `text` is eight hexadecimal digits in lower case.
    init?(text: String, count: Int) {
        guard let value = UInt32(text, radix: 16) else { return nil }
        self.value = value
        self.count = count
        if self.text != text { return nil }
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        value = ck_crc32c(value, base, bytes.count)
        count += bytes.count
    }

    /// Appends bytes of which only the checksum is known.
    public mutating func append(_ other: CRC32C) {
        value = ck_crc32c_combine(value, other.value, other.count)
        count += other.count
    }

    public static func of(_ bytes: [UInt8]) -> CRC32C {
        var checksum = CRC32C()
        bytes.withUnsafeBytes { checksum.update($0) }
        return checksum
    }

    /// Eight hexadecimal digits.
    public var text: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}

/// The system's words for `errno`.
func systemReason(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }
