import Support

/// `disttrain checkpoint prune`: deletes the checkpoints of a run that need not be kept, while no training goes on
/// there: a live run may be reading one, and deletes its own.
package struct CheckpointPruning {
    package let folder: CheckpointFolder
    let retention: Retention

    /// - Parameter path: a run's folder, or its folder of checkpoints.
    package init(run path: String, _ retention: Retention) throws(CheckpointError) {
        folder = try CheckpointFolder.named(path)
        self.retention = retention
    }

    /// The steps that `run` would delete, and how many there are.
    package func preview() throws(CheckpointError) -> (expired: [Int], count: Int) {
        (try folder.expired(retention), try folder.steps().count)
    }

    /// Deletes them, oldest first.
    ///
    /// - Parameter note: told, in a line, why it takes long, and of a checkpoint that stays because it cannot be read.
    /// - Returns: the steps deleted, and how many there were.
    /// - Throws: `RunLockError`, with who uses the run, and then nothing has been deleted; `CheckpointError` where one
    ///   cannot be deleted.
    package func run(
        timing: RunLock.Timing = RunLock.Timing(), note: (String) -> Void
    ) throws -> (expired: [Int], count: Int) {
        try RunLock.holding(folder.run, timing: timing, note: note) {
            let count = try folder.steps().count
            return (try folder.prune(retention) { note("stays: \($0.message)") }, count)
        }
    }
}
