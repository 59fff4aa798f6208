import CArchive
import Foundation
import Imaging
import Support

/// Writes images in the format of diffusion model evaluators: a NumPy archive with `arr_0`, uint8 [N, H, W,
/// C] with C of 3 or, for grayscale, 1, which guided-diffusion's evaluator (`evaluator.py`) and NVlabs' tools read.
///
/// Source: NumPy, "NEP 1: a simple file format for NumPy arrays", version 1.0.
package enum NPZFile {
    /// Writes images of equal size. The file is created atomically.
    ///
    /// - Throws: `ImageError` if it cannot be written.
    package static func write(_ images: [Image], to path: String) throws(ImageError) {
        precondition(!images.isEmpty, "an archive has at least one picture")
        let (width, height, channels) = (images[0].width, images[0].height, images[0].channels)
        precondition(
            images.allSatisfy { $0.width == width && $0.height == height && $0.channels == channels },
            "pictures of different sizes")
        let head = arrayHeader(shape: [images.count, height, width, channels])
        let temporary = "\(path).\(getpid()).tmp"

        let archive = archive_write_new()
        let entry = archive_entry_new()
        defer {
            archive_entry_free(entry)
            archive_write_free(archive)
        }
        archive_write_set_format_zip(archive)
        archive_write_zip_set_compression_store(archive)
        archive_entry_set_pathname(entry, "arr_0.npy")
        archive_entry_set_size(entry, Int64(head.count + images.count * channels * width * height))
        archive_entry_set_filetype(entry, 0o100000)  // AE_IFREG, a macro that Swift does not import
        archive_entry_set_perm(entry, 0o644)
        // 1 January 1980, the first date of zip files: the same images give the same file.
        archive_entry_set_mtime(entry, 315_532_800, 0)
        let isWritten =
            archive_write_open_filename(archive, temporary) == ARCHIVE_OK
            && archive_write_header(archive, entry) == ARCHIVE_OK
            && ([head] + images.map(\.pixels)).allSatisfy {
                archive_write_data(archive, $0, $0.count) == $0.count
            }
            && archive_write_close(archive) == ARCHIVE_OK
        if isWritten, rename(temporary, path) == 0 { return }
        let reason = isWritten ? systemReason() : String(cString: archive_error_string(archive))
        let code = isWritten ? errno : archive_errno(archive)
        unlink(temporary)
        throw ImageError(.inaccessible, name: path, "cannot write the file: \(reason)", code: code)
    }

    /// The header of a C-ordered array of bytes, padded so that the data starts at a multiple of 64 bytes.
    private static func arrayHeader(shape: [Int]) -> [UInt8] {
        let numbers = shape.map(String.init).joined(separator: ", ")
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (\(numbers)), }"
        let length = (10 + text.utf8.count + 1 + 63) / 64 * 64 - 10
        let padding = String(repeating: " ", count: length - text.utf8.count - 1)
        return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)]
            + Array((text + padding + "\n").utf8)
    }
}
