import Foundation
import Support

/// A command that cannot be carried out as it was given.
package struct LaunchError: ReportableError {
    package let message: String
    package let exitStatus: Int32

    package init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}

/// Open MPI's mpirun, told to run this program.
package struct MPIRun: Equatable, Sendable {
    /// Machines other than this one alone, and how they are reached.
    package struct Cluster: Equatable, Sendable {
        package enum Reach: Equatable, Sendable {
            /// The words of the remote shell.
            case ssh([String])
            /// Slurm's srun, inside an allocation.
            case slurm
        }

        package struct Share: Equatable, Sendable {
            package var host: String
            package var ranks: Int

            package init(_ host: String, ranks: Int) { (self.host, self.ranks) = (host, ranks) }
        }

        /// In the order of the ranks.
        package var hosts: [Share]
        package var reach: Reach
        /// The networks that the hosts share, "10.0.0.0/16"; empty: left to Open MPI.
        package var networks: [String]

        package init(hosts: [Share], reach: Reach, networks: [String]) {
            (self.hosts, self.reach, self.networks) = (hosts, reach, networks)
        }
    }

    package let executable: String
    package let arguments: [String]
    /// What the ranks need beyond the launcher's own environment.
    package let environment: [String: String]

    /// Seconds that mpirun gives ranks between SIGTERM and SIGKILL, when it is itself told to end. A supervised job's
    /// ranks end by themselves when one of them is lost, and the launcher does not wait for mpirun then.
    private static let patience = 15

    /// - Parameters:
    ///   - program: the ranks' executable and its arguments.
    ///   - singleCopy: whether ranks may read each other's memory (`sharedMemorySingleCopyWorks`).
    ///   - inherited: the launcher's environment, which wins where the user has set something.
    ///   - cluster: nil: this machine only.
    ///   - attempt: which start of the job this is, where it is supervised.
    package init(
        executable: String, placement: Placement, program: [String], singleCopy: Bool, isRoot: Bool,
        inherited: [String: String], cluster: Cluster? = nil, attempt: [String: String] = [:]
    ) {
        var arguments = ["-q"]  // The ranks print their own errors, and the launcher what happened to them.
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
                // As many slots as ranks: mpirun counts cores its own way and would refuse where it finds fewer.
                "--host", "localhost:\(placement.ranks)",
                // This machine only: needs no ssh, and takes no notice of an allocation around it.
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
            // Elsewhere there is no environment but what mpirun takes along.
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
            // Both of Open MPI's channels; with one alone, a job can hang at its start.
            let networks = cluster.networks.joined(separator: ",")
            arguments += [
                "--mca", "btl_tcp_if_include", networks, "--mca", "oob_tcp_if_include", networks,
            ]
        }
        // A host that is cut off is noticed within seconds; by default it takes minutes.
        return arguments + [
            "--mca", "oob_tcp_keepalive_time", "2", "--mca", "oob_tcp_keepalive_intvl", "1",
            "--mca", "oob_tcp_keepalive_probes", "3",
        ]
    }

    /// The whole command as one could type it.
    package var commandLine: String {
        let assignments = environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return (assignments + ([executable] + arguments).map(shellQuoted)).joined(separator: " ")
    }

    /// The mpirun that the search path leads to.
    package static func find(path: String?) throws -> String {
        for folder in (path ?? "").split(separator: ":") {
            let candidate = "\(folder)/mpirun"
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        throw LaunchError(
            "no mpirun in PATH, which starts the ranks; on Debian or Ubuntu: "
                + "sudo apt-get install openmpi-bin")
    }
}

func shellQuoted(_ word: String) -> String {
    let plain = word.unicodeScalars.allSatisfy {
        CharacterSet.alphanumerics.contains($0) || "-_./:,=+@%^".unicodeScalars.contains($0)
    }
    return plain && !word.isEmpty ? word : "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'"
}
