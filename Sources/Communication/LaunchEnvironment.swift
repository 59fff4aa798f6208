import Foundation

/// How this process was launched, according to the launcher's environment variables.
package enum LaunchEnvironment: Equatable, Sendable {
    /// A process without a launcher; MPI is not used.
    case alone
    /// One of several processes; the number is nil if the launcher does not provide it.
    case rank(of: Int?)

    /// - Throws: if Slurm started several processes without a process management interface through which they
    ///   can connect.
    package init(_ environment: [String: String]) throws(CommunicationError) {
        if let size = environment["OMPI_COMM_WORLD_SIZE"] {
            self = .rank(of: Int(size))
            return
        }
        // Only set in a step started by srun, not in a batch script that runs the program directly.
        let stepTasks = environment["SLURM_STEP_NUM_TASKS"].flatMap { Int($0) }
        let isSlurmTask = environment["SLURM_PROCID"] != nil
        if environment["PMIX_RANK"] != nil || environment["PMI_RANK"] != nil {
            self = .rank(of: environment["PMI_SIZE"].flatMap { Int($0) } ?? (isSlurmTask ? stepTasks : nil))
        } else if isSlurmTask, Self.slurmPMI.contains(where: { environment[$0] != nil }) {
            self = .rank(of: stepTasks)
        } else if isSlurmTask, let stepTasks, stepTasks > 1 {
            throw CommunicationError(
                operation: "start-up",
                reason: "srun started \(stepTasks) processes that cannot find each other; "
                    + "use srun --mpi=pmix, or mpirun inside the allocation")
        } else {
            self = .alone
        }
    }

    /// Whether this process is rank 0 or a single process, before MPI is initialized: for errors in the
    /// command line, which is the same on all ranks.
    package static func speaksForAll(
        _ environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> Bool {
        let rank =
            ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"].lazy.compactMap { environment[$0] }.first
        return rank == nil || rank == "0"
    }

    private static let slurmPMI = ["PMI_FD", "PMI_JOBID", "PMI2_FD", "PMIX_NAMESPACE"]
}
