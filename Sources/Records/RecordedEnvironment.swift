import Foundation

/// The environment variables that a run's records may contain.
///
/// Records are uploaded and shared, and an environment may contain secrets (`SLURM_JWT`, tokens, passwords).
/// A variable is therefore recorded only if it is in this list, which covers the job's id and its size. Names
/// of users, accounts, hosts, addresses and folders are left out.
enum RecordedEnvironment {
    private static let slurm = [
        "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS", "SLURM_JOB_NUM_NODES",
        "SLURM_NNODES", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE",
        "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "SLURM_MEM_PER_NODE",
        "SLURM_MEM_PER_CPU", "SLURM_THREADS_PER_CORE", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME",
    ]
    /// Longer values are dropped: they are not plain names or numbers.
    private static let longestValue = 256

    /// The Slurm job's variables, sorted, without the prefix `SLURM_` and in lower case, as wandb stores
    /// them.
    static func slurmJob(
        _ environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> [(key: String, value: String)] {
        slurm.sorted().compactMap { name in
            environment[name].flatMap { value in
                value.utf8.count > longestValue
                    ? nil : (name.dropFirst("SLURM_".count).lowercased(), value)
            }
        }
    }
}
