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

    /// Reads a file, or its first `limit` bytes, and sums it.
    public static func ofFile(_ path: String, limit: Int = .max) throws(CheckpointError) -> CRC32C {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CheckpointError(.inaccessible, path, "cannot be opened: \(systemReason())")
        }
        defer { close(descriptor) }
        var checksum = CRC32C()
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 << 20, alignment: 64)
        defer { piece.deallocate() }
        while checksum.count < limit {
            let count = read(descriptor, piece.baseAddress, min(piece.count, limit - checksum.count))
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw CheckpointError(.inaccessible, path, "reading failed: \(systemReason())")
            }
            if count == 0 { break }
            checksum.update(UnsafeRawBufferPointer(rebasing: piece[..<count]))
        }
        return checksum
    }
}

/// The system's words for `errno`.
func systemReason(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }
