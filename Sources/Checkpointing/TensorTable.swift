import Communication
import LDMModel
import Support
import TensorCore

/// The named tensors of a flat buffer, which all folders of a checkpoint contain under the same names.
package struct TensorTable: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package let name: String
        package let shape: [Int]
        /// Index of the first element in the flat buffer.
        package let offset: Int
        /// Number of elements.
        package let count: Int

        package init(name: String, shape: [Int], offset: Int) {
            (self.name, self.shape, self.offset) = (name, shape, offset)
            count = shape.reduce(1, *)
        }

        /// The elements' range in the flat buffer.
        package var range: Range<Int> { offset..<offset + count }

        var bytes: Int { count * MemoryLayout<Float>.stride }
    }

    /// The tensors in ascending order of their offsets.
    package let entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    package init(_ store: ParameterStore) {
        self.init(
            entries: store.parametersByOffset.map { Entry(name: $0.name, shape: $0.shape, offset: $0.offset) }
        )
    }

    /// Size of all tensors in bytes, fp32, without padding.
    package var bytes: Int { entries.reduce(0) { $0 + $1.bytes } }

    /// Number of elements of the flat buffer, including padding.
    package var flatCount: Int { entries.map { $0.offset + ($0.count + 15) / 16 * 16 }.max() ?? 0 }

    /// Assigns each tensor to the rank whose slice contains its middle. Nearly all of its bytes are on that
    /// rank already, and each rank's load differs from a slice by at most the size of the largest tensor.
    /// Within a rank the table's order is kept. If tensors are larger than slices, some ranks get none.
    package func partition(over ranks: Int) -> [[Entry]] {
        let slices = ShardLayout(count: flatCount, ranks: ranks)
        return slices.all.map { slice in entries.filter { slice.contains($0.offset + $0.count / 2) } }
    }

    /// The names of the weight files for the parts of a `partition`; nil for a part without tensors, so that
    /// the files are numbered without gaps.
    static func shardNames(_ parts: [[Entry]]) -> [String?] {
        let count = parts.filter { !$0.isEmpty }.count
        var next = 0
        return parts.map { part in
            if part.isEmpty { return nil }
            defer { next += 1 }
            return ModelFolder.shardName(next, of: count)
        }
    }

    /// Describes how the tensors in `found` differ from these in name or shape; nil if they are the same.
    /// Offsets may differ, since they depend on each program's memory layout.
    package func difference(from found: TensorTable) -> String? {
        let wanted = Dictionary(entries.map { ($0.name, $0.shape) }) { first, _ in first }
        let present = Dictionary(found.entries.map { ($0.name, $0.shape) }) { first, _ in first }
        let missing = entries.map(\.name).filter { present[$0] == nil }
        let unexpected = found.entries.map(\.name).filter { wanted[$0] == nil }
        let misshapen = entries.compactMap { entry -> String? in
            guard let shape = present[entry.name], shape != entry.shape else { return nil }
            return "\(entry.name) is \(shape), expected \(entry.shape)"
        }
        let parts = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
            .filter { !$0.1.isEmpty }
            .map { title, names in
                let more = names.count > 8 ? " and \(names.count - 8) more" : ""
                return "\(names.count) \(title): \(names.prefix(8).joined(separator: ", "))\(more)"
            }
        return parts.isEmpty ? nil : parts.joined(separator: "; ")
    }

    /// The table as stored in a manifest.
    var json: JSONValue {
        .array(
            entries.map {
                [
                    "name": .string($0.name), "shape": .array($0.shape.map { .integer($0) }),
                    "offset": .integer($0.offset),
                ]
            })
    }

    /// Reads a manifest's table; nil if it is invalid. Names must be unique, and the tensors must follow each
    /// other without overlap in a buffer whose size in bytes does not overflow.
    init?(_ json: JSONValue?) {
        guard let rows = json?.arrayValue else { return nil }
        var entries: [Entry] = []
        var names = Set<String>()
        var end = 0
        for row in rows {
            guard let name = row["name"]?.stringValue, names.insert(name).inserted,
                let offset = row["offset"]?.intValue, offset >= end,
                let shape = row["shape"]?.arrayValue?.map(\.intValue)
            else { return nil }
            var sides: [Int] = []
            var count = 1
            for side in shape {
                guard let side, side >= 0, !count.multipliedReportingOverflow(by: side).overflow else {
                    return nil
                }
                count *= side
                sides.append(side)
            }
            guard offset <= Self.elementLimit, count <= Self.elementLimit - offset else { return nil }
            entries.append(Entry(name: name, shape: sides, offset: offset))
            end = offset + count
        }
        self.init(entries: entries)
    }

    /// Keeps the sum of the sizes in bytes of ten such buffers below the overflow limit.
    private static let elementLimit = 1 << 56
}
