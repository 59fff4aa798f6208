import Foundation
import LDMModel

/// A file open for reading at any place from several threads.
///
/// `pread` and not a memory map: a file that shrinks or a disk that fails is then an error, not a SIGBUS.
final class ReadOnlyFile: Sendable {
    let name: String
    let size: Int
    private let descriptor: Int32

    init(_ path: String) throws(ImageError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw ImageError(.inaccessible, name: path, "cannot open: \(String(cString: strerror(errno)))")
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw ImageError(.inaccessible, name: path, "not a regular file")
        }
        name = path
        size = Int(status.st_size)
        self.descriptor = descriptor
    }

    /// Takes over a descriptor, and closes it in the end.
    init(descriptor: Int32, name: String, size: Int) {
        self.descriptor = descriptor
        self.name = name
        self.size = size
    }

    deinit { close(descriptor) }

    func readAll() throws(ImageError) -> [UInt8] { try read(at: 0, count: size) }

    /// Exactly `count` bytes from `offset`.
    func read(at offset: Int, count: Int) throws(ImageError) -> [UInt8] {
        var problem: String?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = 0
            while filled < count {
                let got = pread(
                    descriptor, buffer.baseAddress! + filled, count - filled, off_t(offset + filled))
                if got < 0 && errno == EINTR { continue }
                if got < 0 { problem = "cannot read: \(String(cString: strerror(errno)))" }
                if got == 0 { problem = "ends at byte \(offset + filled), expected \(offset + count)" }
                if got <= 0 { return }
                filled += got
            }
        }
        if let problem { throw ImageError(.inaccessible, name: name, problem) }
        StorageProgress.advance()
        return bytes
    }
}
