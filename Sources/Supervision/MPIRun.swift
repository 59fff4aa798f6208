import Foundation
import Support

/// A command that cannot be carried out as given.
package struct LaunchError: ReportableError {
    package let message: String
    package let exitStatus: Int32

    package init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}

/// An invocation of Open MPI's mpirun that runs this program.
package struct MPIRun: Equatable, Sendable {
    /// The hosts of a job that runs on more than this machine, and how to reach them.
    package struct Cluster: Equatable, Sendable {
        package enum Reach: Equatable, Sendable {
            /// The command of the remote shell and its arguments.
            case ssh([String])
            /// Slurm's srun, inside an allocation.
            case slurm
        }

        package struct Share: Equatable, Sendable {
            package var host: String
            package var ranks: Int

            package init(_ host: String, ranks: Int) { (self.host, self.ranks) = (host, ranks) }
        }

        /// In rank order.
        package var hosts: [Share]
        package var reach: Reach
        /// The networks that the hosts share, as "10.0.0.0/16"; empty: Open MPI chooses.
        package var networks: [String]

        package init(hosts: [Share], reach: Reach, networks: [String]) {
            (self.hosts, self.reach, self.networks) = (hosts, reach, networks)
        }
    }

    package let executable: String
    package let arguments: [String]
    /// Variables that the ranks need in addition to the launcher's environment.
    package let environment: [String: String]

    /// Seconds that mpirun gives ranks between SIGTERM and SIGKILL when mpirun itself is terminated. The
    /// ranks of a supervised job end by themselves when one of them is lost, and the launcher does not wait
    /// for mpirun in that case.
    private static let patience = 15

    /// - Parameters:
    ///   - program: the ranks' executable and its arguments.
    ///   - singleCopy: whether ranks may read each other's memory (`sharedMemorySingleCopyWorks`).
    ///   - inherited: the launcher's environment; the user's settings in it take precedence.
    ///   - cluster: the hosts; nil: this machine only.
    ///   - attempt: the variables that identify the attempt of a supervised job.
    package init(
        executable: String, placement: Placement, program: [String], singleCopy: Bool, isRoot: Bool,
        inherited: [String: String], cluster: Cluster? = nil, attempt: [String: String] = [:]
    ) {
        var arguments = ["-q"]  // Quiet: ranks print their own errors, and the launcher reports failures.
        var environment = [
            "OMP_NUM_THREADS": String(placement.threads),
            // OpenBLAS is called from the program's own threads.
            "OPENBLAS_NUM_THREADS": "1",
        ]
        environment.merge(attempt) { _, new in new }
        if let cluster {
            arguments += Self.arguments(for: cluster)
        } else {
            arguments += [
                "-n", String(placement.ranks),
                // As many slots as ranks: mpirun counts cores differently and would refuse to start if it
                // found fewer.
                "--host", "localhost:\(placement.ranks)",
                // Use this machine only: no ssh, and ignore a surrounding allocation.
                "--mca", "plm", "isolated",
                "--mca", "ras", "^slurm,tm,gridengine,lsf",
            ]
        }
        switch placement.binding {
        case .none:
            arguments += ["--bind-to", "none"]
        case .cores:
            arguments += ["--map-by", "slot:PE=\(placement.threads)", "--bind-to", "core"]
        }
        if placement.isOversubscribed {
            arguments += ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
            if inherited["OMP_WAIT_POLICY"] == nil { environment["OMP_WAIT_POLICY"] = "passive" }
        }
        if !singleCopy {
            arguments += ["--mca", "btl_vader_single_copy_mechanism", "none"]
        }
        if !attempt.isEmpty {
            arguments += ["--tag-output", "--mca", "odls_base_sigkill_timeout", String(Self.patience)]
        }
        if cluster != nil {
            // Remote ranks only see the variables that mpirun forwards.
            let inheritedToo = ["LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA"].filter {
                inherited[$0] != nil
            }
            for name in environment.keys.sorted() + inheritedToo { arguments += ["-x", name] }
        }
        if isRoot {
            environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
            environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
        }
        self.executable = executable
        self.arguments = arguments + program
        self.environment = environment
    }

    private static func arguments(for cluster: Cluster) -> [String] {
        let ranks = cluster.hosts.reduce(0) { $0 + $1.ranks }
        let hosts = cluster.hosts.map { "\($0.host):\($0.ranks)" }.joined(separator: ",")
        var arguments = ["-n", String(ranks), "--host", hosts]
        switch cluster.reach {
        case .ssh(let words):
            arguments += [
                "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", words.joined(separator: " "),
                "--mca", "ras", "^slurm,tm,gridengine,lsf",
            ]
        case .slurm: break
        }
        if !cluster.networks.isEmpty {
            // Restrict both of Open MPI's TCP channels (BTL and OOB); with only one of them, a job can hang
            // at startup.
            let networks = cluster.networks.joined(separator: ",")
            arguments += [
                "--mca", "btl_tcp_if_include", networks, "--mca", "oob_tcp_if_include", networks,
            ]
        }
        // Detect a disconnected host within seconds; the default takes minutes.
        return arguments + [
            "--mca", "oob_tcp_keepalive_time", "2", "--mca", "oob_tcp_keepalive_intvl", "1",
            "--mca", "oob_tcp_keepalive_probes", "3",
        ]
    }

    /// The complete command line, quoted for a shell.
    package var commandLine: String {
        let assignments = environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return (assignments + ([executable] + arguments).map(shellQuoted)).joined(separator: " ")
    }

    /// Finds mpirun in the search path.
    package static func find(path: String?) throws -> String {
        for folder in (path ?? "").split(separator: ":") {
            let candidate = "\(folder)/mpirun"
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        throw LaunchError(
            "mpirun, which starts the ranks, is not in PATH; on Debian or Ubuntu: "
                + "sudo apt-get install openmpi-bin")
    }
}

func shellQuoted(_ word: String) -> String {
    let plain = word.unicodeScalars.allSatisfy {
        CharacterSet.alphanumerics.contains($0) || "-_./:,=+@%^".unicodeScalars.contains($0)
    }
    return plain && !word.isEmpty ? word : "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'"
}
