import Foundation
import Support

/// The header of an .npy file: the type, shape and order of an array, whose values follow it.
///
/// - Source: numpy.lib.format, versions 1.0 to 3.0.
package struct NumpyHeader: Sendable, Equatable {
    /// NumPy's type, such as `<f4` or `|u1`; empty if it is not a plain number.
    package let type: String
    package let shape: [Int]
    package let isFortranOrder: Bool
    /// Bytes of the header, after which the values begin.
    package let size: Int
    /// The header's text, for messages.
    let text: String

    /// Enough bytes for the header of any array of numbers: NumPy pads most to 128.
    package static let usualBytes = 4096

    /// The number of values; nil if it is more than `limit`.
    package func count(limit: Int) -> Int? {
        var count = 1
        for side in shape {
            let (product, overflows) = count.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflows, product <= limit else { return nil }
            count = product
        }
        return count
    }

    package static func recognizes(_ start: [UInt8]) -> Bool {
        start.starts(with: [0x93] + Array("NUMPY".utf8))
    }

    /// - Parameters:
    ///   - bytes: the beginning of the file, at least the whole header.
    ///   - name: the name in error messages.
    package init(_ bytes: [UInt8], _ name: String) throws(StatisticsError) {
        let isLong = bytes.count > 6 && bytes[6] >= 2
        let prefix = isLong ? 12 : 10
        guard bytes.count >= prefix, Self.recognizes(bytes), (1...3).contains(bytes[6])
        else { throw StatisticsError(name, "is not an .npy array") }
        let length = (8..<prefix).reduce(0) { $0 | Int(bytes[$1]) << (8 * ($1 - 8)) }
        guard length <= bytes.count - prefix else { throw StatisticsError(name, "is truncated") }
        size = prefix + length
        text = String(decoding: bytes[prefix..<size], as: UTF8.self)
        let quoted = text.split(separator: "'", omittingEmptySubsequences: false)
        // {'descr': '<f4', 'fortran_order': False, …: odd elements are in quotes.
        let place = quoted.indices.first { $0 % 2 == 1 && quoted[$0] == "descr" }
        let follows = place.map { $0 + 2 < quoted.count && !quoted[$0 + 1].contains("[") } ?? false
        type = follows ? String(quoted[place! + 2]) : ""
        isFortranOrder = text.contains("'fortran_order': True")
        guard let open = text.firstIndex(of: "("), let close = text[open...].firstIndex(of: ")") else {
            throw StatisticsError(name, "has no shape: \(text.oneLine())")
        }
        let fields = text[text.index(after: open)..<close].split(separator: ",")
            .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        shape = fields.compactMap { Int($0) }
        guard shape.count == fields.count, shape.allSatisfy({ $0 >= 0 }) else {
            throw StatisticsError(name, "has no shape: \(text.oneLine())")
        }
    }
}
