import Foundation
import Support

/// The small text file that Git stores in place of a large one. It remains in a clone that was made without
/// Git LFS.
///
/// - Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
enum LargeFilePointer {
    private static let start = Array("version https://git-lfs.github.com/spec/".utf8)
    /// Limit on the size of a pointer, from the specification.
    private static let maximumSize = 1024

    /// Throws an error with the remedy if a file is such a pointer.
    static func check(_ file: PositionedFile) throws(SafetensorsError) {
        guard file.size >= start.count, file.size < maximumSize else { return }
        let text: [UInt8]
        do throws(FileError) {
            text = try file.read(at: 0, count: file.size)
        } catch {
            throw SafetensorsError(error)
        }
        guard text.starts(with: start) else { return }
        let size = String(decoding: text, as: UTF8.self).split(separator: "\n")
            .first { $0.hasPrefix("size ") }.flatMap { Int($0.dropFirst(5)) }
        let bytes = size.map { " of \($0) bytes" } ?? ""
        let folder = (file.path as NSString).deletingLastPathComponent
        throw SafetensorsError(
            .header, file.path,
            "is a Git LFS pointer, not the file\(bytes) itself; fetch it with: git -C"
                + " \(folder.isEmpty ? "." : folder) lfs pull")
    }
}
