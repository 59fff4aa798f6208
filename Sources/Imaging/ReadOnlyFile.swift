import Foundation
import Support

/// An image file, open for reading at any position from several threads; see ``PositionedFile``.
package final class ReadOnlyFile: Sendable {
    package let name: String
    private let file: PositionedFile

    package var size: Int { file.size }

    /// Opens a regular file. Pipes, sockets, devices and folders are rejected without blocking.
    package init(_ path: String) throws(ImageError) {
        do throws(FileError) {
            file = try PositionedFile(path)
        } catch {
            throw ImageError(error)
        }
        name = path
    }

    /// Takes ownership of a descriptor and closes it eventually.
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

    /// Reads the whole file; throws if it is larger than `limit` bytes.
    package func readAll(limit: Int) throws(ImageError) -> [UInt8] {
        guard size <= limit else {
            throw ImageError(.tooLarge, name: name, "\(size) bytes, expected at most \(limit)")
        }
        return try read(at: 0, count: size)
    }

    /// Reads exactly `count` bytes from `offset`.
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
