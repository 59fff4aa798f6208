import FileFormats
import Foundation
import Imaging
import Support

/// Data that can only be read from its beginning, copied to one temporary file in which it can be read at any
/// position. The file is unlinked, so that it is deleted when its last reader exits for any reason.
struct Spool: Sendable {
    /// A part of the file.
    enum Part: Hashable, Codable {
        /// The content of a compressed file.
        case archive(String)
        /// A deflated member of a zip archive.
        case member(String, archive: String)
        case standardInput
    }

    let file: ReadOnlyFile
    let parts: [Part: Range<Int>]

    /// - Parameters:
    ///   - file: a file that another process has written.
    init(_ file: ReadOnlyFile, _ parts: [Part: Range<Int>]) { (self.file, self.parts) = (file, parts) }

    /// Copies or decompresses the parts.
    init(_ parts: [Part]) throws(ImageError) {
        let output = try TemporaryOutput()
        var places: [Part: Range<Int>] = [:]
        for part in parts {
            let start = output.size
            switch part {
            case .archive(let path): try Compression.inflate(ReadOnlyFile(path), to: output)
            case .member(let name, let archive):
                let zip = try openZip(.file(ReadOnlyFile(archive)))
                guard let member = zip.members.last(where: { $0.name == name }) else { continue }
                try archiveErrors("\(archive): \(name)") {
                    try zip.readPieces(of: member) { try output.write($0, for: archive) }
                }
            case .standardInput: try Self.copyStandardInput(to: output)
            }
            places[part] = start..<output.size
        }
        let file = try output.finish()
        // An archive from standard input may itself be compressed.
        if let range = places[.standardInput], range.count == file.size, try Compression(of: file) != nil {
            let inflated = try TemporaryOutput()
            try Compression.inflate(file, to: inflated)
            places[.standardInput] = 0..<inflated.size
            self.init(try inflated.finish(), places)
        } else {
            self.init(file, places)
        }
    }

    private static func copyStandardInput(to output: TemporaryOutput) throws(ImageError) {
        let name = standardInputName
        guard isatty(0) == 0 else {
            throw ImageError(
                .unknownSource, name: name,
                "is a terminal; expected a tar archive, as in `tar -c photos | "
                    + "disttrain prepare - …`")
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { buffer.deallocate() }
        while true {
            let count = Foundation.read(0, buffer.baseAddress, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                let code = errno
                throw ImageError(
                    .inaccessible, name: name, "cannot be read: \(systemReason(code))", code: code)
            }
            if count == 0 { break }
            try output.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), for: name)
            StorageProgress.advance()
        }
        guard output.size > 0 else {
            throw ImageError(
                .empty, name: name,
                "is empty; expected a tar archive: check the program that writes it, and start several ranks with "
                    + "mpirun, because `disttrain launch` does not pass standard input on")
        }
    }
}

/// The name of the standard input in messages.
let standardInputName = "standard input"

/// An unlinked file in the temporary folder: $TMPDIR, or /tmp.
final class TemporaryOutput {
    /// Bytes to leave free in the temporary folder for other programs.
    private static let reserve = 256 << 20

    private let folder: String
    private let descriptor: Int32
    /// Bytes written so far.
    private(set) var size = 0
    private var checkedSize = 0

    init() throws(ImageError) {
        folder = ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
        var template = Array("\(folder)/disttrain-XXXXXX".utf8CString)
        descriptor = mkstemp(&template)
        guard descriptor >= 0 else {
            throw Self.failure(folder, folder, "create a temporary file")
        }
        unlink(template)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    deinit { close(descriptor) }

    func failure(_ doing: String, for source: String) -> ImageError { Self.failure(source, folder, doing) }

    private static func failure(_ source: String, _ folder: String, _ doing: String) -> ImageError {
        let code = errno
        return ImageError(
            .inaccessible, name: source,
            "cannot \(doing) to decompress or copy it in \(folder): \(String(cString: strerror(code))); set "
                + "TMPDIR to use another folder", code: code)
    }

    /// - Parameter source: what the bytes come from, for errors.
    func write(_ bytes: UnsafeRawBufferPointer, for source: String) throws(ImageError) {
        if checkedSize == 0 || size - checkedSize >= 64 << 20 { try checkSpace(source) }
        var written = 0
        while written < bytes.count {
            let count = Foundation.write(
                descriptor, bytes.baseAddress! + written, bytes.count - written)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw failure("write \(size + bytes.count) bytes", for: source) }
            written += count
        }
        size += bytes.count
    }

    /// Stops before the file system is full, which would affect other programs.
    private func checkSpace(_ source: String) throws(ImageError) {
        checkedSize = max(size, 1)
        var status = statvfs()
        guard fstatvfs(descriptor, &status) == 0 else { return }
        let free = Int(clamping: UInt64(status.f_bavail) &* UInt64(status.f_frsize))
        guard free >= min(Self.reserve, Int(clamping: status.f_blocks) / 20 * Int(status.f_frsize)) else {
            throw ImageError(
                .inaccessible, name: source,
                "\(folder) has only \(free >> 20) MiB free after \(size >> 20) MiB of it have been decompressed or "
                    + "copied; free space, set TMPDIR to another folder, or decompress it and use the result",
                code: ENOSPC)
        }
    }

    /// The file, open for reading.
    func finish() throws(ImageError) -> ReadOnlyFile {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw failure("keep the temporary file", for: folder) }
        return try ReadOnlyFile(adopting: copy, name: "the temporary file in \(folder)")
    }
}
