import CZlib
import Foundation

/// Inflates a .gz file into a temporary file that has no name any more and so vanishes with its last reader.
func inflateGzip(_ path: String) throws(ImageError) -> ReadOnlyFile {
    let folder = ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
    var template = Array("\(folder)/disttrain-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    func fail(_ doing: String) -> ImageError {
        let reason = String(cString: strerror(errno))
        return ImageError(
            .inaccessible, name: path,
            "cannot \(doing) in \(folder) to inflate the archive: \(reason); TMPDIR may name another folder")
    }
    guard descriptor >= 0 else { throw fail("create a temporary file") }
    unlink(template)
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)

    guard let stream = gzopen(path, "rb") else {
        close(descriptor)
        throw ImageError(.inaccessible, name: path, "cannot open: \(String(cString: strerror(errno)))")
    }
    defer { gzclose_r(stream) }
    gzbuffer(stream, 1 << 18)
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    var size = 0
    while true {
        let got = Int(gzread(stream, &chunk, UInt32(chunk.count)))
        var code: Int32 = 0
        let message = String(cString: gzerror(stream, &code))
        // At the end of a file cut short, gzread hands out what it has and leaves Z_BUF_ERROR.
        guard got >= 0, code == Z_OK || code == Z_STREAM_END else {
            close(descriptor)
            throw ImageError(
                .badArchive, name: path,
                "damaged or cut short gzip after \(size + max(got, 0)) bytes: \(message)")
        }
        if got == 0 { break }
        var written = 0
        while written < got {
            let count = chunk.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, got - written) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let error = fail("write \(size) bytes")
                close(descriptor)
                throw error
            }
            written += count
        }
        size += got
    }
    return ReadOnlyFile(descriptor: descriptor, name: path, size: size)
}
