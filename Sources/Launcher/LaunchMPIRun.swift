import DistTrain
import Foundation

/// A command that cannot be carried out as it was given.
public struct LaunchError: ReportableError {
    public let message: String
    public let exitStatus: Int32

    public init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}

/// Open MPI's mpirun, told to run this program on this machine.
public struct MPIRun: Equatable, Sendable {
    public let executable: String
    public let arguments: [String]
    /// What the ranks need beyond the launcher's own environment.
    public let environment: [String: String]

    /// - Parameters:
    ///   - program: the ranks' executable and its arguments.
    ///   - singleCopy: whether ranks may read each other's memory (`sharedMemorySingleCopyWorks`).
    ///   - inherited: the launcher's environment, which wins where the user has set something.
    public init(
        executable: String, placement: Placement, program: [String], singleCopy: Bool, isRoot: Bool,
        inherited: [String: String]
    ) {
        var arguments = [
            "-q",  // The ranks print their own errors, and the launcher what happened to them.
            "-n", String(placement.ranks),
            // As many slots as ranks: mpirun counts cores its own way and would refuse where it finds fewer.
            "--host", "localhost:\(placement.ranks)",
            // This machine only: needs no ssh, and takes no notice of an allocation around it.
            "--mca", "plm", "isolated",
            "--mca", "ras", "^slurm,tm,gridengine,lsf",
        ]
        var environment = [
            "OMP_NUM_THREADS": String(placement.threads),
            // OpenBLAS is called from the program's own threads.
            "OPENBLAS_NUM_THREADS": "1",
        ]
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
        if isRoot {
            environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
            environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
        }
        self.executable = executable
        self.arguments = arguments + program
        self.environment = environment
    }

    /// The whole command as one could type it.
    public var commandLine: String {
        let assignments = environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return (assignments + ([executable] + arguments).map(shellQuoted)).joined(separator: " ")
    }

    /// The mpirun that the search path leads to.
    public static func find(path: String?) throws -> String {
        for folder in (path ?? "").split(separator: ":") {
            let candidate = "\(folder)/mpirun"
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        throw LaunchError(
            "no mpirun in PATH, which starts the ranks; on Debian or Ubuntu: "
                + "sudo apt-get install openmpi-bin")
    }
}

private func shellQuoted(_ word: String) -> String {
    let plain = word.unicodeScalars.allSatisfy {
        CharacterSet.alphanumerics.contains($0) || "-_./:,=+@%^".unicodeScalars.contains($0)
    }
    return plain && !word.isEmpty ? word : "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'"
}
