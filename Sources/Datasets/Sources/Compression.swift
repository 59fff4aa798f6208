import CZlib
import FileFormats
import Foundation
import Imaging

/// How a file is compressed, by its first bytes.
enum Compression: String {
    case gzip, zstd, xz, bzip2

    /// An archive of images expands little, because images are already compressed. Above ``unlimitedBytes``,
    /// a larger expansion ratio than this is rejected as a decompression bomb. Deflate reaches 1,032.
    static let maximumRatio = 200
    static let unlimitedBytes = 1 << 30

    init?(of file: ReadOnlyFile) throws(ImageError) {
        let start = try file.read(at: 0, count: min(6, file.size))
        if start.starts(with: [0x1F, 0x8B]) {
            self = .gzip
        } else if start.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
            self = .zstd
        } else if start.starts(with: [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00]) {
            self = .xz
        } else if start.starts(with: Array("BZh".utf8)) {
            self = .bzip2
        } else {
            return nil
        }
    }

    static func inflate(_ archive: ReadOnlyFile, to output: TemporaryOutput) throws(ImageError) {
        guard let compression = try Compression(of: archive) else {
            try archive.readPieces(of: 0..<archive.size, name: archive.name, to: output)
            return
        }
        let before = output.size
        func write(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
            try checkRatio(output.size - before + bytes.count, of: archive.size, archive.name)
            try output.write(bytes, for: archive.name)
        }
        if compression == .gzip { return try gunzip(archive, output, write) }
        do {
            let reader = try ArchiveReader(.compressed, size: archive.size) {
                try archive.read(at: $0, count: $1)
            }
            _ = try reader.next()
            let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
            defer { piece.deallocate() }
            while true {
                let count = try reader.read(into: piece)
                if count == 0 { return }
                try write(UnsafeRawBufferPointer(rebasing: piece[..<count]))
            }
        } catch let error as ArchiveError {
            throw damaged(archive, compression, output.size - before, error.detail)
        } catch let error as ImageError {
            throw error
        } catch {
            throw ImageError(.badArchive, name: archive.name, "\(error)")
        }
    }

    /// zlib verifies checksums, which libarchive's reader of gzip does not.
    private static func gunzip(
        _ archive: ReadOnlyFile, _ output: TemporaryOutput,
        _ write: (UnsafeRawBufferPointer) throws(ImageError) -> Void
    ) throws(ImageError) {
        let before = output.size
        let copy = fcntl(archive.descriptor, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0, lseek(copy, 0, SEEK_SET) == 0, let stream = gzdopen(copy, "rb") else {
            throw output.failure("open \(archive.name)", for: archive.name)
        }
        defer { gzclose_r(stream) }
        gzbuffer(stream, 1 << 18)
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { chunk.deallocate() }
        while true {
            let got = Int(gzread(stream, chunk.baseAddress, UInt32(chunk.count)))
            var code: Int32 = 0
            let message = String(cString: gzerror(stream, &code))
            // For a truncated file, gzread returns the available bytes and sets Z_BUF_ERROR.
            guard got >= 0, code == Z_OK || code == Z_STREAM_END else {
                if code == Z_ERRNO { throw output.failure("read \(archive.name)", for: archive.name) }
                throw damaged(archive, .gzip, output.size - before + max(got, 0), message)
            }
            if got == 0 { return }
            try write(UnsafeRawBufferPointer(rebasing: chunk[..<got]))
        }
    }

    private static func damaged(
        _ archive: ReadOnlyFile, _ compression: Compression, _ size: Int, _ message: String
    ) -> ImageError {
        ImageError(
            .badArchive, name: archive.name,
            "damaged or truncated \(compression.rawValue) data after \(size) bytes: \(message)")
    }

    /// Throws if `size` bytes are too many for an archive of `stored` bytes.
    static func checkRatio(_ size: Int, of stored: Int, _ name: String) throws(ImageError) {
        guard size <= unlimitedBytes || size / maximumRatio <= stored else {
            throw ImageError(
                .badArchive, name: name,
                "expands to more than \(size) bytes, over \(maximumRatio) times its size of \(stored); "
                    + "expected an archive of images; if it is one, decompress it first (gunzip, zstd -d, unzip) and "
                    + "use the result"
            )
        }
    }
}

extension ReadOnlyFile {
    fileprivate func readPieces(
        of range: Range<Int>, name: String, to output: TemporaryOutput
    ) throws(ImageError) {
        var failure: ImageError?
        try readPieces(of: range) { piece in
            guard failure == nil else { return }
            do throws(ImageError) { try output.write(piece, for: name) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
