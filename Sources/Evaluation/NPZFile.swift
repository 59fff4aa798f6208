import CZlib
import Foundation
import Imaging
import Support

/// Writes images in the format of diffusion model evaluators: a NumPy archive with `arr_0`, uint8 [N, H, W,
/// 3].
///
/// It can be read by guided-diffusion's evaluator (`evaluator.py`) and NVlabs' tools. The archive is a ZIP
/// file with one uncompressed member, `arr_0.npy`. Sizes are stored in ZIP64 format, as NumPy does, since
/// fifty thousand images may exceed 4 GiB.
///
/// Sources: NumPy, "NEP 1: a simple file format for NumPy arrays", version 1.0; PKWARE, APPNOTE 6.3.10,
/// sections 4.3 and 4.5.3.
package enum NPZFile {
    private static let member = Array("arr_0.npy".utf8)

    /// Writes images of equal size. The file is created atomically.
    ///
    /// - Throws: `ImageError` if it cannot be written.
    package static func write(_ images: [Image], to path: String) throws(ImageError) {
        precondition(!images.isEmpty, "an archive has at least one picture")
        let (width, height) = (images[0].width, images[0].height)
        precondition(
            images.allSatisfy { $0.width == width && $0.height == height }, "pictures of different sizes")
        let head = arrayHeader(shape: [images.count, height, width, 3])
        let size = UInt64(head.count + images.count * 3 * width * height)
        var checksum = crc32_z(0, head, head.count)
        for image in images { checksum = crc32_z(checksum, image.pixels, image.pixels.count) }
        let entry = Entry(size: size, crc32: UInt32(truncatingIfNeeded: checksum))

        let temporary = "\(path).\(getpid()).tmp"
        guard let file = fopen(temporary, "wb") else {
            throw ImageError(.inaccessible, name: path, "cannot create the file: \(systemReason())")
        }
        let pieces = [entry.localHeader(member), head] + images.map(\.pixels) + [entry.directory(member)]
        let isWritten = pieces.allSatisfy { fwrite($0, 1, $0.count, file) == $0.count }
        let reason = systemReason()
        guard fclose(file) == 0, isWritten, rename(temporary, path) == 0 else {
            let last = isWritten ? systemReason() : reason
            unlink(temporary)
            throw ImageError(.inaccessible, name: path, "cannot write the file: \(last)")
        }
    }

    /// The header of a C-ordered array of bytes, padded so that the data starts at a multiple of 64 bytes.
    private static func arrayHeader(shape: [Int]) -> [UInt8] {
        let numbers = shape.map(String.init).joined(separator: ", ")
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (\(numbers)), }"
        let length = (10 + text.utf8.count + 1 + 63) / 64 * 64 - 10
        let padding = String(repeating: " ", count: length - text.utf8.count - 1)
        return [0x93] + Array("NUMPY".utf8) + [1, 0] + UInt16(length).bytes
            + Array((text + padding + "\n").utf8)
    }

    /// The only member of the archive.
    private struct Entry {
        let size: UInt64
        let crc32: UInt32

        /// The first version with ZIP64.
        private static let version: UInt16 = 45
        /// The ZIP64 sizes: uncompressed and compressed, which are equal.
        private var extra: [UInt8] { UInt16(1).bytes + UInt16(16).bytes + size.bytes + size.bytes }

        /// Version, flags, method "stored", date 1 January 1980, checksum, sizes (see `extra`), length of the
        /// name.
        private func common(_ name: [UInt8]) -> [UInt8] {
            Self.version.bytes + [0, 0, 0, 0, 0, 0] + UInt16(0x21).bytes + crc32.bytes + UInt32.max.bytes
                + UInt32.max.bytes + UInt16(name.count).bytes + UInt16(extra.count).bytes
        }

        func localHeader(_ name: [UInt8]) -> [UInt8] {
            UInt32(0x0403_4B50).bytes + common(name) + name + extra
        }

        /// The central directory and its end record.
        func directory(_ name: [UInt8]) -> [UInt8] {
            // No comment, first disk, no attributes, offset 0 in the archive.
            let rest = [UInt8](repeating: 0, count: 14)
            let record = UInt32(0x0201_4B50).bytes + Self.version.bytes + common(name) + rest + name + extra
            let start = UInt64(localHeader(name).count) + size
            let end64 =
                UInt32(0x0606_4B50).bytes + UInt64(44).bytes + Self.version.bytes + Self.version.bytes
                + UInt32(0).bytes + UInt32(0).bytes + UInt64(1).bytes + UInt64(1).bytes
                + UInt64(record.count).bytes + start.bytes
            let locator =
                UInt32(0x0706_4B50).bytes + UInt32(0).bytes + (start + UInt64(record.count)).bytes
                + UInt32(1).bytes
            let end =
                UInt32(0x0605_4B50).bytes + UInt32(0).bytes + UInt16(1).bytes + UInt16(1).bytes
                + UInt32(record.count).bytes + UInt32.max.bytes + UInt16(0).bytes
            return record + end64 + locator + end
        }
    }
}

extension FixedWidthInteger {
    /// The bytes in little-endian order.
    fileprivate var bytes: [UInt8] { withUnsafeBytes(of: littleEndian) { Array($0) } }
}
