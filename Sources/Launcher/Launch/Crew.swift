import DistTrain
import Foundation

/// The machines that a job may run on, and how it is spread over those that answer.
struct Crew {
    enum Place {
        /// This machine.
        case here
        case ssh([HostEntry], shell: [String])
        case slurm(SlurmAllocation)
    }

    let place: Place
    /// As asked for: of the whole job, and of each rank.
    let ranks: Int?
    let threads: Int?
    /// Networks that the user names, "10.0.0.0/16"; empty: found out.
    let networks: [String]
    let mpirun: String
    let program: String
    let environment: [String: String]

    /// A job's ranks, each with its place.
    struct Placed {
        /// "node0:2", in the order of the ranks.
        var hosts: [String]
        var threads: Int
        var summary: String
        /// The mpirun for a command of this program, and for variables that mark this start.
        var mpirun: ([String], [String: String]) -> MPIRun
    }

    /// Seconds between two looks for hosts that are missing, and how long it looks.
    private static let pause = 5.0
    private static let patience = 600.0

    /// Finds out who is there and places the ranks.
    ///
    /// - Parameters:
    ///   - minRanks: fewer than these are too few; nil: on the first start all hosts must be there, later half of the
    ///     ranks.
    ///   - marker: a file by which hosts prove that they share the run's folder; removed afterwards.
    ///   - reaping: earlier starts, whose processes are killed where some are left.
    /// - Throws: `LaunchError` where hosts do not fit together, or too few come.
    func assemble(
        minRanks: Int?, marker: (path: String, text: String)?, reaping: [String], say: (String) -> Void
    ) throws -> Placed {
        defer { if let marker { unlink(marker.path) } }
        let entries: [HostEntry]
        let reach: MPIRun.Cluster.Reach
        switch place {
        case .here: return placeHere()
        case .ssh(let hosts, let shell): (entries, reach) = (hosts, .ssh(shell))
        case .slurm(let allocation):
            // One node needs neither srun nor a network.
            (entries, reach) = (allocation.hosts, .slurm)
        }
        let probe = HostProbe(reach: reach, program: program)
        let began = monotonicTime()
        var told: Set<String> = []
        while true {
            let answers = probe.ask(entries.map(\.name), marker: marker?.path, reaping: reaping)
            var present: [(entry: HostEntry, report: HostReport)] = []
            var faults: [String] = []
            for (entry, answer) in zip(entries, answers) {
                switch answer {
                case .report(let report): present.append((entry, report))
                case .fault(let line): faults.append(line)
                }
            }
            let found = HostCheck.faults(
                present.map(\.report), marker: marker?.text,
                folder: marker.map { ($0.path as NSString).deletingLastPathComponent },
                askedAt: Date().timeIntervalSince1970)
            let isFirst = reaping.isEmpty
            let fatal = found.filter(\.isFatal).map(\.line)
            if !fatal.isEmpty { throw LaunchError(fatal.joined(separator: "; ")) }
            for line in (found.map(\.line) + faults)
            where told.insert(line).inserted && !(isFirst && minRanks == nil && faults.contains(line)) {
                say("warning: \(line)")
            }
            let shares = share(present)
            let count = shares.reduce(0) { $0 + $1.ranks }
            let full = ranks ?? entries.reduce(0) { $0 + ($1.slots ?? 1) }
            let needed = minRanks ?? (isFirst ? nil : (full + 1) / 2)
            if faults.isEmpty || count >= (needed ?? .max) {
                return place(shares, present.map(\.report), reach)
            }
            if isFirst && minRanks == nil {
                throw LaunchError(
                    faults.joined(separator: "; ")
                        + "; mend that, or let the job begin with fewer (--min-ranks)")
            }
            guard monotonicTime() - began < Self.patience, SignalCounts.received == nil else {
                throw LaunchError(
                    "\(count) ranks could be placed, expected \(needed ?? full) (--min-ranks): "
                        + faults.joined(separator: "; "), exitStatus: ExitStatus.runAgain)
            }
            usleep(UInt32(Self.pause * 1e6))
        }
    }

    private func placeHere() -> Placed {
        let placement = Placement(machine: Machine(), ranks: ranks, threads: threads)
        return Placed(
            hosts: ["\(ProcessInfo.processInfo.hostName):\(placement.ranks)"], threads: placement.threads,
            summary: placement.summary, mpirun: { run(placement, nil, $0, $1) })
    }

    /// Ranks by host: slots as named, or as the processors give room for; `ranks` in all, where that is asked for.
    private func share(_ present: [(entry: HostEntry, report: HostReport)]) -> [MPIRun.Cluster.Share] {
        var shares = present.map { entry, report in
            MPIRun.Cluster.Share(
                entry.name,
                ranks: entry.slots ?? Placement(machine: Machine(report), threads: threads).ranks)
        }
        guard let ranks, !shares.isEmpty else { return shares }
        let room = shares.reduce(0) { $0 + $1.ranks }
        var left = ranks
        for index in shares.indices {
            // More ranks than slots are spread evenly.
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
        _ shares: [MPIRun.Cluster.Share], _ reports: [HostReport], _ reach: MPIRun.Cluster.Reach
    ) -> Placed {
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
            hosts: shares.map { "\($0.host):\($0.ranks)" }, threads: threads,
            summary: placement.summary(nodes: shares.map(\.ranks)) + over,
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
    /// As another host tells of itself.
    init(_ report: HostReport) {
        self.init(
            cores: (0..<report.usableCores).map { [$0] }, memoryDomains: report.memoryDomains,
            isWhole: report.isWhole)
    }
}
