import Foundation
import MPIShim
import Support
import TensorCore

/// Information about this program.
package enum Program {
    package static let version = "0.1.0"

    /// The first part of the MPI library's version text: "Open MPI v4.1.4, package: …".
    package static var mpiVersion: String {
        var text = [CChar](repeating: 0, count: 512)
        mpishim_library_version(&text, text.count)
        let whole = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return String(whole.split(separator: ",").first ?? "no MPI")
    }

    /// The vector instruction sets, and the kernels that are used for them.
    package static var processor: String { "\(Processor.features) (\(Backend.fastest.summary))" }

    /// The CRC-32C checksum of a program's file, to compare builds.
    package static func checksum(of path: String) -> String {
        var checksum = CRC32C()
        do throws(FileError) {
            let file = try PositionedFile(path)
            try file.readPieces(of: 0..<file.size) { checksum.update($0) }
        } catch {
            return "unreadable"
        }
        return checksum.text
    }
}
