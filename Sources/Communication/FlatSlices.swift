/// How the flat parameter store is cut among ranks: one slice each, in rank order, of equal size to within 16
/// elements, borders on 64-byte lines.
package struct FlatSlices: Sendable, Equatable {
    /// Elements of the store.
    package let count: Int
    package let ranks: Int

    package init(count: Int, ranks: Int) {
        precondition(count >= 0 && ranks > 0, "\(count) elements on \(ranks) ranks")
        (self.count, self.ranks) = (count, ranks)
    }

    /// The elements of a rank; empty where there are more ranks than lines.
    package subscript(rank: Int) -> Range<Int> {
        let lines = (count + 15) / 16
        return min(count, lines * rank / ranks * 16)..<min(count, lines * (rank + 1) / ranks * 16)
    }

    /// All slices, in rank order.
    package var all: [Range<Int>] { (0..<ranks).map { self[$0] } }
}
