/// How many ranks run on a machine, with how many threads each, and where.
package struct Placement: Equatable, Sendable {
    package enum Binding: Equatable, Sendable {
        /// Ranks run where the kernel puts them. Right on one memory domain, and wherever other jobs may run:
        /// two bound jobs would both sit on the first cores.
        case none
        /// Each rank keeps to as many physical cores of its own as it has threads.
        case cores
    }

    package let ranks: Int
    package let threads: Int
    package let usableCores: Int
    package let binding: Binding

    /// More threads than cores: ranks that wait give way to those that compute.
    package var isOversubscribed: Bool { ranks * threads > usableCores }

    /// - Parameters:
    ///   - ranks: as asked for; by default as many as the cores give room for.
    ///   - threads: of each rank, as asked for; by default the cores shared out among the ranks, and four
    ///     where the number of ranks is open too (one on small machines), since a rank's memory does not
    ///     shrink with its share of the batch.
    package init(machine: Machine, ranks: Int? = nil, threads: Int? = nil) {
        let cores = machine.usableCores
        let roomyThreads = cores < 8 ? 1 : 4
        let threads = threads ?? ranks.map { max(1, cores / $0) } ?? roomyThreads
        let ranks = ranks ?? max(1, cores / threads)
        self.ranks = ranks
        self.threads = threads
        usableCores = cores
        let fillsMachine = machine.isWhole && machine.quota == nil && ranks * threads == machine.cores.count
        binding = machine.memoryDomains > 1 && fillsMachine ? .cores : .none
    }

    /// Of one machine, or of the fullest of several.
    package init(ranks: Int, threads: Int, usableCores: Int, binding: Binding) {
        (self.ranks, self.threads, self.usableCores, self.binding) = (ranks, threads, usableCores, binding)
    }

    /// "1 node × 2 ranks × 1 thread, 2 of 2 cores, not bound"
    package var summary: String { summary(nodes: [ranks]) }

    /// The same for several machines, with the ranks of each; cores are those of each machine.
    package func summary(nodes: [Int]) -> String {
        let isEven = nodes.allSatisfy { $0 == nodes[0] }
        let shape =
            isEven
            ? "\(count(nodes.count, "node")) × \(count(ranks, "rank")) × \(count(threads, "thread"))"
            : "\(count(nodes.count, "node")), \(nodes.reduce(0, +)) ranks × \(count(threads, "thread"))"
        guard !isOversubscribed else {
            return shape + " on \(count(usableCores, "core")): oversubscribed, waiting ranks give way"
        }
        let bound = binding == .cores ? "each rank bound to its own cores" : "not bound"
        return shape + ", \(ranks * threads) of \(count(usableCores, "core")), \(bound)"
    }

    private func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)\(number == 1 ? "" : "s")"
    }
}
