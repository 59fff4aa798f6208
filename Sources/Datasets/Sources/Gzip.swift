import CZlib
import Foundation
import Imaging

/// Decompresses .gz files to temporary files.
enum Gzip {
    /// An archive of images expands little, because images are already compressed. Above ``unlimitedBytes``,
    /// a larger expansion ratio than this is rejected as a decompression bomb. Deflate reaches 1,032.
    static let maximumRatio = 200
    static let unlimitedBytes = 1 << 30
    /// Bytes to leave free in the temporary folder for other programs.
    private static let reserve = 256 << 20

    static func recognizes(_ file: ReadOnlyFile) throws(ImageError) -> Bool {
        try file.read(at: 0, count: min(2, file.size)) == [0x1F, 0x8B]
    }

    /// The folder for temporary files: $TMPDIR, or /tmp.
    static var temporaryFolder: String {
        ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
    }

    /// Decompresses a file to an unlinked temporary file, which is deleted when its last reader exits for any
    /// reason.
    static func inflate(_ archive: ReadOnlyFile) throws(ImageError) -> ReadOnlyFile {
        let output = try TemporaryOutput(for: archive.name)
        let stream = gzopen(archive.name, "rb")
        guard let stream else { throw output.failure("open \(archive.name)") }
        defer { gzclose_r(stream) }
        gzbuffer(stream, 1 << 18)
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        var size = 0
        while true {
            let got = Int(gzread(stream, &chunk, UInt32(chunk.count)))
            var code: Int32 = 0
            let message = String(cString: gzerror(stream, &code))
            // For a truncated file, gzread returns the available bytes and sets Z_BUF_ERROR.
            guard got >= 0, code == Z_OK || code == Z_STREAM_END else {
                if code == Z_ERRNO { throw output.failure("read \(archive.name)") }
                throw ImageError(
                    .badArchive, name: archive.name,
                    "damaged or truncated gzip data after \(size + max(got, 0)) bytes: \(message)")
            }
            if got == 0 { return try output.finish() }
            size += got
            guard size <= unlimitedBytes || size / maximumRatio <= archive.size else {
                throw ImageError(
                    .badArchive, name: archive.name,
                    "expands to more than \(size) bytes, over \(maximumRatio) times its size of \(archive.size); "
                        + "expected an archive of images; if it is one, decompress it with gunzip and use the .tar file"
                )
            }
            try output.write(chunk[..<got], total: size)
        }
    }

    /// An unlinked file in the temporary folder.
    private struct TemporaryOutput: ~Copyable {
        let archive: String
        let folder: String
        private let descriptor: Int32

        init(for archive: String) throws(ImageError) {
            self.archive = archive
            folder = Gzip.temporaryFolder
            var template = Array("\(folder)/disttrain-XXXXXX".utf8CString)
            descriptor = mkstemp(&template)
            guard descriptor >= 0 else {
                throw Self.failure(archive, folder, "create a temporary file")
            }
            unlink(template)
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }

        deinit { close(descriptor) }

        func failure(_ doing: String) -> ImageError { Self.failure(archive, folder, doing) }

        private static func failure(_ archive: String, _ folder: String, _ doing: String) -> ImageError {
            let code = errno
            return ImageError(
                .inaccessible, name: archive,
                "cannot \(doing) to decompress the archive in \(folder): \(String(cString: strerror(code))); set "
                    + "TMPDIR to use another folder", code: code)
        }

        /// - Parameter total: bytes in the file after this write.
        func write(_ bytes: ArraySlice<UInt8>, total: Int) throws(ImageError) {
            if total % (64 << 20) <= bytes.count { try checkSpace(total) }
            var written = 0
            while written < bytes.count {
                let count = bytes.withUnsafeBytes {
                    Foundation.write(descriptor, $0.baseAddress! + written, bytes.count - written)
                }
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { throw failure("write \(total) bytes") }
                written += count
            }
        }

        /// Stops before the file system is full, which would affect other programs.
        private func checkSpace(_ total: Int) throws(ImageError) {
            var status = statvfs()
            guard fstatvfs(descriptor, &status) == 0 else { return }
            let free = Int(clamping: UInt64(status.f_bavail) &* UInt64(status.f_frsize))
            guard free >= min(Gzip.reserve, Int(clamping: status.f_blocks) / 20 * Int(status.f_frsize)) else {
                throw ImageError(
                    .inaccessible, name: archive,
                    "\(folder) has only \(free >> 20) MiB free after \(total >> 20) MiB of the archive have been "
                        + "decompressed; free space, set TMPDIR to another folder, or decompress it with gunzip",
                    code: ENOSPC)
            }
        }

        /// The file, open for reading.
        consuming func finish() throws(ImageError) -> ReadOnlyFile {
            let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
            guard copy >= 0 else { throw failure("keep the temporary file") }
            return try ReadOnlyFile(adopting: copy, name: archive)
        }
    }
}
