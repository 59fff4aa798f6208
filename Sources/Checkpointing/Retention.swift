/// Which checkpoints stay when a new one has been saved. It goes by the steps and metrics of manifests, never by a
/// file's time.
package struct Retention: Sendable, Equatable {
    /// The newest so many; at least 1.
    package var keepLast: Int
    /// And all at multiples of this step; 0 for none.
    package var keepEvery: Int
    /// And so many of the lowest metric, wherever they are; 0 for none.
    package var keepBest: Int

    package init(keepLast: Int, keepEvery: Int = 0, keepBest: Int = 0) {
        self.keepLast = max(1, keepLast)
        self.keepEvery = max(0, keepEvery)
        self.keepBest = max(0, keepBest)
    }

    /// What is known of a checkpoint.
    package struct Standing: Sendable, Equatable {
        package enum State: Sendable, Equatable {
            case whole
            case damaged
            /// Of another version of the program, or it cannot be read now.
            case foreign
        }

        package var step: Int
        package var state: State
        package var metric: CheckpointMetric?

        package init(step: Int, state: State = .whole, metric: CheckpointMetric? = nil) {
            self.step = step
            self.state = state
            self.metric = metric
        }
    }

    /// The steps to delete, ascending.
    ///
    /// Only whole checkpoints count as kept: a damaged one is no reason to delete the one before it, and goes itself
    /// when there are enough whole ones after it. What another version of the program wrote is not touched.
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

    /// Of equal metrics the newer is the better: it has learnt for longer.
    private func best(of newestFirst: [Standing]) -> Set<Int> {
        guard let name = newestFirst.lazy.compactMap(\.metric).first?.name else { return [] }
        let measured = newestFirst.compactMap { checkpoint in
            checkpoint.metric?.name == name ? checkpoint.metric.map { (checkpoint.step, $0.value) } : nil
        }
        return Set(measured.sorted { ($0.1, $1.0) < ($1.1, $0.0) }.prefix(keepBest).map(\.0))
    }
}

extension CheckpointFolder {
    /// The steps that `prune` would delete. Each checkpoint is opened: its manifest is read, its files' sizes compared.
    ///
    /// - Parameter unreadable: told of each that could not be looked at, and so stays.
    package func expired(
        _ retention: Retention, unreadable: (CheckpointError) -> Void = { _ in }
    ) throws(CheckpointError) -> [Int] {
        let steps = try steps()
        // In the usual case nothing has to be read.
        guard steps.count > retention.keepLast else { return [] }
        return retention.expired(of: steps.map { standing($0, unreadable) })
    }

    private func standing(_ step: Int, _ unreadable: (CheckpointError) -> Void) -> Retention.Standing {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint(opening: path(step: step))
            return Retention.Standing(step: step, metric: checkpoint.manifest.metric)
        } catch {
            // What cannot be read now may be readable later.
            if error.kind == .inaccessible { unreadable(error) }
            return Retention.Standing(step: step, state: error.kind == .damaged ? .damaged : .foreign)
        }
    }

    /// Deletes the checkpoints that need not be kept, oldest first. For one rank.
    ///
    /// - Parameter undeletable: called for each that could not be read or deleted. It stays; the others are deleted all
    ///   the same.
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
