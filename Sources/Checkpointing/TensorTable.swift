import Communication
import LDMModel
import Support
import TensorCore

/// The named tensors of a flat buffer: what a checkpoint's folders all hold, under the same names.
package struct TensorTable: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package let name: String
        package let shape: [Int]
        /// First element in the flat buffer.
        package let offset: Int
        /// Number of elements.
        package let count: Int

        package init(name: String, shape: [Int], offset: Int) {
            self.name = name
            self.shape = shape
            self.offset = offset
            count = shape.reduce(1, *)
        }

        /// Its place in the flat buffer, in elements.
        package var range: Range<Int> { offset..<offset + count }

        var bytes: Int { count * MemoryLayout<Float>.stride }
    }

    /// In the order of their offsets.
    package let entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    package init(_ store: ParameterStore) {
        self.init(
            entries: store.parametersByOffset.map { Entry(name: $0.name, shape: $0.shape, offset: $0.offset) }
        )
    }

    /// Bytes of all tensors, fp32, without padding.
    package var bytes: Int { entries.reduce(0) { $0 + $1.bytes } }

    /// The flat buffer's elements, padding included.
    package var flatCount: Int { entries.map { $0.offset + ($0.count + 15) / 16 * 16 }.max() ?? 0 }

    /// Gives each tensor to the rank whose slice its middle lies in: nearly all of its bytes lie there already, and no
    /// rank's load is further from a slice than the largest tensor. Within a rank the table's order is kept; where
    /// tensors are longer than slices, some ranks get none.
    package func partition(over ranks: Int) -> [[Entry]] {
        let slices = FlatSlices(count: flatCount, ranks: ranks)
        return slices.all.map { slice in entries.filter { slice.contains($0.offset + $0.count / 2) } }
    }

    /// The name of the weight file that holds each part of a `partition`; nil for a part without tensors, wherever it
    /// is: files are numbered without a gap.
    static func shardNames(_ parts: [[Entry]]) -> [String?] {
        let count = parts.filter { !$0.isEmpty }.count
        var next = 0
        return parts.map { part in
            if part.isEmpty { return nil }
            defer { next += 1 }
            return ModelFolder.shardName(next, of: count)
        }
    }

    /// How the tensors `found` differ from these in name or shape, in one phrase; nil where they are the same.
    /// Offsets may differ: they are a matter of each program's memory.
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

    /// The table as a manifest holds it.
    var json: JSONValue {
        .array(
            entries.map {
                [
                    "name": .string($0.name), "shape": .array($0.shape.map { .integer($0) }),
                    "offset": .integer($0.offset),
                ]
            })
    }

    /// Reads a manifest's table; nil where it makes no sense: names are there once, and tensors lie one behind the
    /// other, without overlap, in a buffer whose bytes can be counted.
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

    /// So that no sum of bytes of ten such buffers overflows.
    private static let elementLimit = 1 << 56
}
