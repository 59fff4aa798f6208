import Support

/// `disttrain checkpoint prune`: deletes the checkpoints of a run that the retention rule does not keep. The
/// run must not be training: it may be reading a checkpoint, and prunes its own.
package struct CheckpointPruning {
    package let folder: CheckpointFolder
    let retention: Retention

    /// - Parameter path: a run folder, or its checkpoint folder.
    package init(run path: String, _ retention: Retention) throws(CheckpointError) {
        folder = try CheckpointFolder.named(path)
        self.retention = retention
    }

    /// The steps that `run` would delete, and the number of checkpoints.
    package func preview() throws(CheckpointError) -> (expired: [Int], count: Int) {
        (try folder.expired(retention), try folder.steps().count)
    }

    /// Deletes the expired checkpoints, oldest first.
    ///
    /// - Parameter note: called with one line that explains a long wait, or that names a checkpoint that is
    ///   kept because it cannot be read or deleted.
    /// - Returns: the steps deleted, and the number of checkpoints before.
    /// - Throws: `RunLockError`, which names the process that uses the run, before anything is deleted;
    ///   `CheckpointError` if the folder cannot be listed.
    package func run(
        timing: RunLock.Timing = RunLock.Timing(), note: (String) -> Void
    ) throws -> (expired: [Int], count: Int) {
        try RunLock.holding(folder.run, timing: timing, note: note) {
            let count = try folder.steps().count
            return (try folder.prune(retention) { note("stays: \($0.message)") }, count)
        }
    }
}
