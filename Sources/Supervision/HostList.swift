import Foundation

/// A machine on which ranks may run.
package struct HostEntry: Equatable, Sendable {
    package var name: String
    /// Number of ranks on this host; nil: as many as its cores allow.
    package var slots: Int?

    package init(_ name: String, slots: Int? = nil) { (self.name, self.slots) = (name, slots) }
}

/// Parses the hosts of a job from a hostfile, a command line or a Slurm allocation.
package enum HostList {
    /// Parses an Open MPI hostfile: one name per line, optionally followed by `slots=4`; `#` starts a
    /// comment. The slots of repeated names are added up.
    package static func hostfile(_ path: String) throws -> [HostEntry] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw LaunchError("--hostfile \(path): cannot be read")
        }
        var hosts: [HostEntry] = []
        let text = String(decoding: data, as: UTF8.self)
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
            guard let name = words.first else { continue }
            try checkName(name, "\(path):\(number + 1)")
            var slots: Int?
            for word in words.dropFirst() {
                let parts = word.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, let count = Int(parts[1]), count > 0 else {
                    throw LaunchError(
                        "\(path):\(number + 1): found '\(word)', expected slots=COUNT after the host's name")
                }
                if parts[0] == "slots" || (parts[0] == "max_slots" && slots == nil) { slots = count }
            }
            add(HostEntry(String(name), slots: slots), to: &hosts)
        }
        guard !hosts.isEmpty else { throw LaunchError("--hostfile \(path): lists no hosts") }
        return hosts
    }

    /// Parses `node1:4,node2:4`; the numbers are optional.
    package static func list(_ text: String) throws -> [HostEntry] {
        var hosts: [HostEntry] = []
        for word in text.split(separator: ",") {
            let parts = word.split(separator: ":", omittingEmptySubsequences: false)
            let slots = parts.count == 2 ? Int(parts[1]) : nil
            guard parts.count <= 2, !parts[0].isEmpty, parts.count == 1 || (slots ?? 0) > 0 else {
                throw LaunchError(
                    "--host \(text): found '\(word)', expected NAME or NAME:RANKS, separated by commas")
            }
            try checkName(parts[0], "--host \(text.oneLine())")
            add(HostEntry(String(parts[0]), slots: slots), to: &hosts)
        }
        guard !hosts.isEmpty else { throw LaunchError("--host: lists no hosts") }
        return hosts
    }

    /// Rejects names that a remote shell, srun or mpirun could interpret as an option or as more than a name.
    ///
    /// - Parameter place: where the name was found, for the error message.
    package static func checkName(_ name: some StringProtocol, _ place: String) throws {
        let isPlain = name.allSatisfy {
            $0.isASCII && ($0.isLetter || $0.isNumber || "._:-".contains($0))
        }
        guard isPlain, let first = name.first, first != "-" else {
            throw LaunchError(
                "\(place): found the host name '\(String(name).oneLine())', expected letters, digits, '.', '_', ':' and "
                    + "'-', not starting with '-'")
        }
    }

    private static func add(_ host: HostEntry, to hosts: inout [HostEntry]) {
        if let index = hosts.firstIndex(where: { $0.name == host.name }) {
            if let more = host.slots { hosts[index].slots = (hosts[index].slots ?? 0) + more }
        } else {
            hosts.append(host)
        }
    }
}

/// The Slurm allocation of this job.
package struct SlurmAllocation: Equatable, Sendable {
    package var job: String
    package var hosts: [HostEntry]
    /// Threads per rank; nil if the job did not request a number.
    package var threads: Int?
    /// How often Slurm has requeued the job.
    package var restarts: Int

    /// - Parameter expand: expands `node[1-3,7]` into names.
    /// - Throws: `LaunchError` outside of a Slurm allocation.
    package init(_ environment: [String: String], expand: (String) throws -> [String]) throws {
        guard let job = environment["SLURM_JOB_ID"], let nodes = environment["SLURM_JOB_NODELIST"] else {
            throw LaunchError(
                "--slurm: not inside a Slurm allocation (SLURM_JOB_ID is not set); submit the job with "
                    + "sbatch cluster/slurm/train.sbatch, or run salloc first")
        }
        self.job = job
        let threads = environment["SLURM_CPUS_PER_TASK"].flatMap { Int($0) }
        self.threads = threads
        restarts = environment["SLURM_RESTART_COUNT"].flatMap { Int($0) } ?? 0
        let names = try expand(nodes)
        for name in names { try HostList.checkName(name, "SLURM_JOB_NODELIST") }
        // Use the task counts if the job requested tasks, otherwise the CPU counts. If it requested neither,
        // each host reports its own number of cores, because Slurm counts hardware threads.
        let asked = environment["SLURM_NTASKS"] != nil ? environment["SLURM_TASKS_PER_NODE"] : nil
        var counts = asked.map(Self.counts) ?? []
        if counts.isEmpty, let threads, let processors = environment["SLURM_JOB_CPUS_PER_NODE"] {
            counts = Self.counts(processors).map { max(1, $0 / threads) }
        }
        hosts = names.enumerated().map { index, name in
            HostEntry(name, slots: index < counts.count ? counts[index] : nil)
        }
    }

    /// "4(x2),1" is 4, 4, 1.
    package static func counts(_ text: String) -> [Int] {
        text.split(separator: ",").flatMap { part -> [Int] in
            let pieces = part.split(whereSeparator: { "(x)".contains($0) }).compactMap { Int($0) }
            guard let count = pieces.first else { return [] }
            return Array(repeating: count, count: pieces.count > 1 ? pieces[1] : 1)
        }
    }
}
