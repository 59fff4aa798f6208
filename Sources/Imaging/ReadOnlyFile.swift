import Foundation
import Support

/// A file of images, open for reading at any position from several threads; see ``PositionedFile``.
package final class ReadOnlyFile: Sendable {
    package let name: String
    private let file: PositionedFile

    package var size: Int { file.size }

    /// Opens a regular file. Pipes, sockets, devices and folders are refused, without waiting for another process.
    package init(_ path: String) throws(ImageError) {
        do throws(FileError) {
            file = try PositionedFile(path)
        } catch {
            throw ImageError(error)
        }
        name = path
    }

    /// Takes over a descriptor, and closes it in the end.
    package init(adopting descriptor: Int32, name: String) throws(ImageError) {
        do throws(FileError) {
            file = try PositionedFile(adopting: descriptor, path: name)
        } catch {
            throw ImageError(error)
        }
        self.name = name
    }

    package var identity: PositionedFile.Identity { file.identity }
    package var descriptor: Int32 { file.descriptor }

    /// The whole file, which must not be larger than `limit`.
    package func readAll(limit: Int) throws(ImageError) -> [UInt8] {
        guard size <= limit else {
            throw ImageError(.tooLarge, name: name, "\(size) bytes, expected at most \(limit)")
        }
        return try read(at: 0, count: size)
    }

    /// Exactly `count` bytes from `offset`.
    package func read(at offset: Int, count: Int) throws(ImageError) -> [UInt8] {
        do throws(FileError) {
            return try file.read(at: offset, count: count)
        } catch {
            throw ImageError(error)
        }
    }

    /// Calls `body` with the bytes of a range, in order and in pieces.
    package func readPieces(of range: Range<Int>, _ body: (UnsafeRawBufferPointer) -> Void) throws(ImageError)
    {
        do throws(FileError) {
            try file.readPieces(of: range, body)
        } catch {
            throw ImageError(error)
        }
    }
}

extension ImageError {
    package init(_ error: FileError) {
        self.init(.inaccessible, name: error.path, error.detail, code: error.code)
    }
}
