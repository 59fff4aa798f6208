/// Selects the checkpoints to keep after a new one has been saved, by the steps and metrics in their
/// manifests, not by file times.
package struct Retention: Sendable, Equatable {
    /// Number of newest checkpoints to keep; at least 1.
    package var keepLast: Int
    /// Also keep all checkpoints at multiples of this step; 0 for none.
    package var keepEvery: Int
    /// Also keep this many checkpoints with the lowest metric, wherever they are; 0 for none.
    package var keepBest: Int

    package init(keepLast: Int, keepEvery: Int = 0, keepBest: Int = 0) {
        self.keepLast = max(1, keepLast)
        self.keepEvery = max(0, keepEvery)
        self.keepBest = max(0, keepBest)
    }

    /// The properties of a checkpoint that retention uses.
    package struct Standing: Sendable, Equatable {
        package enum State: Sendable, Equatable {
            case whole
            case damaged
            /// Written by another version of the program, or currently unreadable.
            case foreign
        }

        package var step: Int
        package var state: State
        package var metric: CheckpointMetric?

        package init(step: Int, state: State = .whole, metric: CheckpointMetric? = nil) {
            (self.step, self.state, self.metric) = (step, state, metric)
        }
    }

    /// The steps to delete, ascending.
    ///
    /// Only intact checkpoints count as kept: a damaged one does not cause the deletion of the one before it,
    /// and is itself deleted once there are enough intact ones after it. Checkpoints of other program
    /// versions are never deleted.
    package func expired(of checkpoints: [Standing]) -> [Int] {
        let whole = checkpoints.filter { $0.state == .whole }.sorted { $0.step > $1.step }
        guard whole.count >= keepLast else { return [] }
        let oldestKept = whole[keepLast - 1].step
        let best = best(of: whole)
        return checkpoints.filter { checkpoint in
            checkpoint.step < oldestKept && checkpoint.state != .foreign && !best.contains(checkpoint.step)
                && (keepEvery == 0 || checkpoint.step % keepEvery != 0)
        }.map(\.step).sorted()
    }

    /// If metrics are equal, the newer checkpoint wins, since it was trained for longer.
    private func best(of newestFirst: [Standing]) -> Set<Int> {
        guard let name = newestFirst.lazy.compactMap(\.metric).first?.name else { return [] }
        let measured = newestFirst.compactMap { checkpoint in
            checkpoint.metric?.name == name ? checkpoint.metric.map { (checkpoint.step, $0.value) } : nil
        }
        return Set(measured.sorted { ($0.1, $1.0) < ($1.1, $0.0) }.prefix(keepBest).map(\.0))
    }
}

extension CheckpointFolder {
    /// The steps that `prune` would delete. Opens each checkpoint: reads its manifest and compares the files'
    /// sizes.
    ///
    /// - Parameter unreadable: called for each checkpoint that could not be examined and is therefore kept.
    package func expired(
        _ retention: Retention, unreadable: (CheckpointError) -> Void = { _ in }
    ) throws(CheckpointError) -> [Int] {
        let steps = try steps()
        // In the usual case no manifest has to be read.
        guard steps.count > retention.keepLast else { return [] }
        return retention.expired(of: steps.map { standing($0, unreadable) })
    }

    private func standing(_ step: Int, _ unreadable: (CheckpointError) -> Void) -> Retention.Standing {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint(opening: path(step: step))
            return Retention.Standing(step: step, metric: checkpoint.manifest.metric)
        } catch {
            // A checkpoint that is unreadable now may be readable later.
            if error.kind == .inaccessible { unreadable(error) }
            return Retention.Standing(step: step, state: error.kind == .damaged ? .damaged : .foreign)
        }
    }

    /// Deletes the checkpoints that the retention rule does not keep, oldest first. For one rank.
    ///
    /// - Parameter undeletable: called for each checkpoint that could not be read or deleted. It is kept; the
    ///   others are still deleted.
    /// - Returns: the steps deleted.
    @discardableResult
    package func prune(
        _ retention: Retention, undeletable: (CheckpointError) -> Void = { _ in }
    ) throws(CheckpointError) -> [Int] {
        try expired(retention, unreadable: undeletable).filter { step in
            do throws(CheckpointError) {
                try remove(step: step)
                return true
            } catch {
                undeletable(error)
                return false
            }
        }
    }
}
