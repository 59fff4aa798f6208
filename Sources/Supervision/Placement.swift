/// The number of ranks on a machine, the threads per rank, and their binding to cores.
package struct Placement: Equatable, Sendable {
    package enum Binding: Equatable, Sendable {
        /// The kernel schedules ranks on any core. Right for a single memory domain, and wherever other jobs
        /// may run: two bound jobs would both use the first cores.
        case none
        /// Each rank is bound to as many physical cores of its own as it has threads.
        case cores
    }

    package let ranks: Int
    package let threads: Int
    package let usableCores: Int
    package let binding: Binding

    /// More threads than cores: waiting ranks yield to those that compute.
    package var isOversubscribed: Bool { ranks * threads > usableCores }

    /// - Parameters:
    ///   - ranks: the requested number; by default as many as the cores allow.
    ///   - threads: the requested number per rank. By default the cores are divided among the ranks. If the
    ///     number of ranks is not given either, each rank has four threads (one on machines with fewer than 8
    ///     cores), since the memory of a rank does not shrink with its share of the batch.
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

    /// Creates the placement on one machine, or on the machine with the most ranks of several.
    package init(ranks: Int, threads: Int, usableCores: Int, binding: Binding) {
        (self.ranks, self.threads, self.usableCores, self.binding) = (ranks, threads, usableCores, binding)
    }

    /// "1 node × 2 ranks × 1 thread, 2 of 2 cores, not bound"
    package var summary: String { summary(nodes: [ranks]) }

    /// The summary for several machines, with the ranks of each; the number of cores is per machine.
    package func summary(nodes: [Int]) -> String {
        let isEven = nodes.allSatisfy { $0 == nodes[0] }
        let shape =
            isEven
            ? "\(count(nodes.count, "node")) × \(count(ranks, "rank")) × \(count(threads, "thread"))"
            : "\(count(nodes.count, "node")), \(nodes.reduce(0, +)) ranks × \(count(threads, "thread"))"
        guard !isOversubscribed else {
            return shape + " on \(count(usableCores, "core")): oversubscribed, waiting ranks yield"
        }
        let bound = binding == .cores ? "each rank bound to its own cores" : "not bound"
        return shape + ", \(ranks * threads) of \(count(usableCores, "core")), \(bound)"
    }

    private func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)\(number == 1 ? "" : "s")"
    }
}
