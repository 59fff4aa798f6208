import Communication
import Foundation
import Support

/// The hosts that a job may run on, and the placement of its ranks on those that respond.
package struct Crew {
    package enum Place {
        /// This machine.
        case here
        case ssh([HostEntry], shell: [String])
        case slurm(SlurmAllocation)
    }

    package let place: Place
    /// The requested number of ranks in the whole job, and of threads per rank; nil: the default.
    package let ranks: Int?
    package let threads: Int?
    /// Networks named by the user, as "10.0.0.0/16"; empty: detected.
    package let networks: [String]
    package let mpirun: String
    package let program: String
    package let environment: [String: String]

    package init(
        place: Place, ranks: Int?, threads: Int?, networks: [String], mpirun: String, program: String,
        environment: [String: String]
    ) {
        (self.place, self.ranks, self.threads, self.networks) = (place, ranks, threads, networks)
        (self.mpirun, self.program, self.environment) = (mpirun, program, environment)
    }

    /// The ranks of a job with their placement.
    package struct Placed {
        /// In rank order.
        package var shares: [MPIRun.Cluster.Share]
        /// Maps each host's own name to the name the user gave it.
        package var names: [String: String]
        package var threads: Int
        package var summary: String
        /// Creates the mpirun invocation for a command of this program and for the variables that mark this
        /// attempt.
        package var mpirun: ([String], [String: String]) -> MPIRun

        /// "node0:2", in rank order.
        package var hosts: [String] { shares.map { "\($0.host):\($0.ranks)" } }

        /// A warning if the open file limit is too low for mpirun, which needs three descriptors per rank on
        /// this host.
        package var fileLimitWarning: String? {
            let own = shares.filter { isThisHost($0.host) }.reduce(0) { $0 + $1.ranks }
            return OpenFileLimit.shortage(of: 3 * own, for: "mpirun's pipes to \(own) ranks").map {
                "warning: \($0)"
            }
        }
    }

    /// How to handle hosts that are missing or unfit.
    package struct Conditions {
        /// The minimum number of ranks; nil: all hosts on the first attempt, half of the ranks on later ones.
        package var minRanks: Int?
        /// Whether this is the launcher's first attempt.
        package var isFirst = true
        /// A file that shows whether a host shares the run's folder; removed afterwards.
        package var marker: (path: String, text: String)?
        /// Earlier attempts, whose remaining processes are killed.
        package var reaping: [String] = []
        /// Which hosts fail repeatedly.
        package var health = HostHealth()

        package init(
            minRanks: Int? = nil, isFirst: Bool = true, marker: (path: String, text: String)? = nil,
            reaping: [String] = [], health: HostHealth = HostHealth()
        ) {
            (self.minRanks, self.isFirst, self.marker) = (minRanks, isFirst, marker)
            (self.reaping, self.health) = (reaping, health)
        }
    }

    /// Seconds between two probes for missing hosts, and seconds until the launcher gives up on them.
    private static let pause = 5.0
    private static let patience = 600.0

    /// Determines which hosts respond and can run the job, and places the ranks on them.
    ///
    /// - Throws: `LaunchError` if hosts are incompatible with each other or too few are available.
    package func assemble(_ conditions: Conditions, say: (String) -> Void) throws -> Placed {
        let marker = conditions.marker
        defer { if let marker { unlink(marker.path) } }
        guard let (entries, reach) = remote else { return placeHere() }
        let isStrict = conditions.isFirst && conditions.minRanks == nil
        let probe = HostProbe(reach: reach, program: program)
        let own = HostReport.own(peers: [], marker: nil)
        let began = monotonicTime()
        var printed: Set<String> = []
        while true {
            let answers = probe.ask(
                entries.map(\.name), marker: marker?.path, reaping: conditions.reaping)
            var present: [Present] = []
            var missing: [String] = []
            for (entry, answer) in zip(entries, answers) {
                switch answer {
                case .report(let report): present.append(Present(entry: entry, report: report))
                case .fault(let line): missing.append(line)
                }
            }
            let check = HostCheck(
                present.map { HostCheck.Subject($0.entry.name, $0.report) },
                own: own, marker: marker.map(HostCheck.Marker.init),
                askedAt: Date().timeIntervalSince1970)
            let fatal = check.faults.filter(\.isFatal).map(\.line)
            if isStrict, !fatal.isEmpty {
                throw LaunchError(Set(fatal).sorted().joined(separator: "; "))
            }
            for fault in check.faults where !fault.isFatal && printed.insert(fault.line).inserted {
                say("warning: \(fault.line)")
            }
            let absent = missing + Set(fatal).sorted()
            for line in absent where !isStrict && printed.insert(line).inserted {
                say("warning: excluded for now: \(line)")
            }
            let good = present.filter { !check.badHosts.contains($0.entry.name) }
            let full = ranks ?? entries.reduce(0) { $0 + ($1.slots ?? 1) }
            let needed = conditions.minRanks ?? (isStrict ? full : (full + 1) / 2)
            let chosen = admitted(good, needed, conditions.health, &printed, say)
            let shares = share(chosen)
            let count = shares.reduce(0) { $0 + $1.ranks }
            if absent.isEmpty ? count > 0 : !isStrict && count >= needed {
                return place(shares, chosen, reach)
            }
            if isStrict {
                throw LaunchError(
                    absent.joined(separator: "; ")
                        + "; fix this, or start with fewer ranks (--min-ranks)")
            }
            guard monotonicTime() - began < Self.patience, SignalCounts.received == nil else {
                throw LaunchError(
                    "\(count) ranks could be placed, expected \(needed) (--min-ranks): "
                        + absent.joined(separator: "; "), exitStatus: ExitStatus.runAgain)
            }
            usleep(UInt32(Self.pause * 1e6))
        }
    }

    /// The hosts of the job, under the user's names, that no longer respond.
    package func unreachable(_ names: [String]) -> Set<String> {
        guard let (_, reach) = remote else { return [] }
        let answers = HostProbe(reach: reach, program: program, timeout: 5).ask(names, marker: nil)
        return Set(
            zip(names, answers).compactMap { name, answer in
                if case .fault = answer { name } else { nil }
            })
    }

    /// A host that responds.
    private struct Present {
        var entry: HostEntry
        var report: HostReport
    }

    /// The hosts and how to reach them; nil if the job runs on this machine only.
    private var remote: (entries: [HostEntry], reach: MPIRun.Cluster.Reach)? {
        switch place {
        case .here: nil
        case .ssh(let hosts, let shell): (hosts, .ssh(shell))
        // A single node needs neither srun nor a network.
        case .slurm(let allocation): (allocation.hosts, .slurm)
        }
    }

    /// Leaves out hosts that fail repeatedly, as long as the remaining ones are enough.
    private func admitted(
        _ good: [Present], _ needed: Int, _ health: HostHealth, _ printed: inout Set<String>,
        _ say: (String) -> Void
    ) -> [Present] {
        let now = monotonicTime()
        let names = health.admitted(good.map(\.entry.name), now: now) { names in
            share(good.filter { names.contains($0.entry.name) }).reduce(0) { $0 + $1.ranks } >= needed
        }
        for host in good.map(\.entry.name) {
            guard let seconds = health.exclusion(of: host, now: now) else { continue }
            let line =
                names.contains(host)
                ? "fails repeatedly, but too few hosts remain without it" : "fails repeatedly and is excluded"
            if printed.insert("\(host): \(line)").inserted {
                say("warning: \(host): \(line) (exclusion ends in \(duration(seconds)))")
            }
        }
        return good.filter { names.contains($0.entry.name) }
    }

    private func placeHere() -> Placed {
        let placement = Placement(machine: Machine(), ranks: ranks, threads: threads)
        return Placed(
            shares: [MPIRun.Cluster.Share(ProcessInfo.processInfo.hostName, ranks: placement.ranks)],
            names: [:], threads: placement.threads, summary: placement.summary,
            mpirun: { run(placement, nil, $0, $1) })
    }

    /// Ranks per host: the given slots, or as many as the cores allow; limited to `ranks` in total if that is
    /// set.
    private func share(_ present: [Present]) -> [MPIRun.Cluster.Share] {
        var shares = present.map {
            MPIRun.Cluster.Share(
                $0.entry.name,
                ranks: $0.entry.slots ?? Placement(machine: Machine($0.report), threads: threads).ranks)
        }
        guard let ranks, !shares.isEmpty else { return shares }
        let room = shares.reduce(0) { $0 + $1.ranks }
        var left = ranks
        for index in shares.indices {
            // If there are more ranks than slots, spread them evenly.
            let fair =
                ranks > room
                ? (ranks * (index + 1)) / shares.count - (ranks * index) / shares.count
                : min(left, shares[index].ranks)
            shares[index].ranks = fair
            left -= fair
        }
        return shares.filter { $0.ranks > 0 }
    }

    private func place(
        _ shares: [MPIRun.Cluster.Share], _ present: [Present], _ reach: MPIRun.Cluster.Reach
    ) -> Placed {
        let reports = present.map(\.report)
        let fullest = shares.map(\.ranks).max() ?? 1
        let cores = reports.map(\.usableCores).min() ?? 1
        let threads = threads ?? max(1, cores / fullest)
        let isBindable = reports.allSatisfy {
            $0.memoryDomains > 1 && $0.isWhole && fullest * threads == $0.usableCores
        }
        let placement = Placement(
            ranks: fullest, threads: threads, usableCores: cores, binding: isBindable ? .cores : .none)
        let found = networks.isEmpty ? Network.shared(reports) : networks
        let cluster = MPIRun.Cluster(hosts: shares, reach: reach, networks: shares.count > 1 ? found : [])
        let over = cluster.networks.isEmpty ? "" : ", over \(cluster.networks.joined(separator: " and "))"
        return Placed(
            shares: shares,
            names: Dictionary(
                present.map { ($0.report.host, $0.entry.name) }, uniquingKeysWith: { first, _ in first }),
            threads: threads, summary: placement.summary(nodes: shares.map(\.ranks)) + over,
            mpirun: { run(placement, cluster, $0, $1) })
    }

    private func run(
        _ placement: Placement, _ cluster: MPIRun.Cluster?, _ words: [String], _ marks: [String: String]
    ) -> MPIRun {
        MPIRun(
            executable: mpirun, placement: placement, program: words,
            singleCopy: sharedMemorySingleCopyWorks(), isRoot: geteuid() == 0, inherited: environment,
            cluster: cluster, attempt: marks)
    }
}

extension Machine {
    /// A remote host, as described by its report.
    package init(_ report: HostReport) {
        self.init(
            cores: (0..<report.usableCores).map { [$0] }, memoryDomains: report.memoryDomains,
            isWhole: report.isWhole)
    }
}
