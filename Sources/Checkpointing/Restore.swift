import Communication
import Foundation
import Support

/// The starting point of a run: `--resume auto|none|PATH` and `--resume-before STEP`.
///
/// The run's own checkpoints always take precedence, so that repeating a command never loses progress.
package struct Resume: Sendable, Equatable, CustomStringConvertible {
    /// The starting point of a run that has no checkpoints of its own.
    package enum Source: Sendable, Equatable {
        /// Initial weights.
        case auto
        /// Initial weights; the run folder must be empty.
        case none
        /// A checkpoint, or the newest one of another run.
        case path(String)
    }

    package var source: Source
    /// Roll back, once, to the newest of the run's own checkpoints before this step; later ones are set
    /// aside.
    package var before: Int?

    package init(_ source: Source, before: Int? = nil) { (self.source, self.before) = (source, before) }

    package init(_ text: String, before: Int? = nil) {
        switch text {
        case "auto": source = .auto
        case "none": source = .none
        default: source = .path(text)
        }
        self.before = before
    }

    package static let auto = Resume(.auto)
    package static let none = Resume(.none)
    package static func path(_ path: String) -> Resume { Resume(.path(path)) }

    package var description: String {
        switch source {
        case .auto: return "auto"
        case .none: return "none"
        case .path(let path): return path
        }
    }
}

extension CheckpointFolder {
    /// Restores the training state from the checkpoint that `resume` selects. Collective.
    ///
    /// Uses the newest checkpoint whose manifest and files match their checksums. A checkpoint that is proven
    /// damaged is skipped with a warning. One that is temporarily unreadable is retried for half a minute,
    /// then the run ends with a storage fault: it may be intact, and resuming from an older one would discard
    /// progress. One that is intact but belongs to another model is an error, because an older one would not
    /// match either. Checkpoints of later steps than the restored one are set aside, since their steps will
    /// be saved again.
    ///
    /// - Parameters:
    ///   - buffers: filled with the state; undefined if this throws.
    ///   - accept: inspects a checkpoint's manifest on every rank before any tensor is loaded; an error
    ///     thrown here ends the resume.
    ///   - warn: called on rank 0 only, with one line for each checkpoint that is skipped, retried or set
    ///     aside.
    ///   - pauses: seconds before each retry of a read.
    /// - Returns: nil if there is nothing to resume from.
    /// - Throws: `CheckpointError` if there are checkpoints but none is usable, since silently starting from
    ///   scratch would discard the run.
    package func restore(
        _ resume: Resume, into buffers: [StateBuffer], _ table: TensorTable, communicator: Communicator,
        accept: (Checkpoint) throws -> Void = { _ in }, warn: (String) -> Void,
        pauses: [Double] = [0.5, 1, 2, 4, 8, 15]
    ) throws -> Checkpoint? {
        let candidates = try communicator.fromRoot("looking for checkpoints") {
            try self.candidates(for: resume)
        }
        guard let newest = candidates.first else { return nil }
        var firstProblem = ""
        for path in candidates {
            switch try load(path, into: buffers, table, communicator, accept, warn, pauses) {
            case .success(let checkpoint):
                try setAside(after: checkpoint.manifest.step, communicator, warn)
                if let before = resume.before {
                    try communicator.collectively("recording --resume-before") {
                        if communicator.isRoot { try noteGoneBack(before) }
                    }
                }
                return checkpoint
            case .failure(let damage):
                if firstProblem.isEmpty { firstProblem = damage.message }
                if communicator.isRoot, path != candidates.last {
                    warn("skipping checkpoint \((path as NSString).lastPathComponent): \(damage.message)")
                }
            }
        }
        throw CheckpointError(
            .damaged, newest,
            candidates.count == 1
                ? "cannot be used: \(firstProblem)"
                : "none of \(candidates.count) checkpoints can be used; the newest: \(firstProblem)")
    }

    /// Sets aside the checkpoints of later steps than the one that was restored. Collective.
    ///
    /// - Parameter warn: called on rank 0 only, with one line for each.
    package func setAside(after step: Int, _ communicator: Communicator, _ warn: (String) -> Void) throws {
        let moved = try communicator.fromRoot("setting aside later steps of \(path)") {
            try setAside(
                after: step, id: String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16))
        }
        if communicator.isRoot {
            for path in moved { warn("set aside as \(path): the run resumes from an earlier step") }
        }
    }

    // MARK: Candidates

    /// The checkpoints to try, newest first: the run's own or, if it has none, those at `resume`'s path.
    ///
    /// - Throws: `CheckpointError` or `RunError`.
    package func candidates(for resume: Resume) throws -> [String] {
        if resume.source == .none { return [] }
        var own = try steps()
        if let before = resume.before, !hasGoneBack(before) {
            own.removeAll { $0 >= before }
            guard !own.isEmpty else {
                throw RunError(
                    "--resume-before \(before): \(path) holds no checkpoint before step \(before); "
                        + "`disttrain checkpoint ls` lists the checkpoints")
            }
        }
        if let newest = own.last {
            try checkTakesPrecedence(newest, over: resume.source)
            return own.reversed().map { path(step: $0) }
        }
        guard case .path(let path) = resume.source else { return [] }
        return try Self.checkpoints(at: path, orElse: "auto, none, ")
    }

    /// Rejects a path to an older checkpoint of the same run: repeating such a command, as a requeued job
    /// does, would discard progress every time.
    private func checkTakesPrecedence(_ newest: Int, over source: Resume.Source) throws(RunError) {
        guard case .path(let text) = source else { return }
        let named = URL(fileURLWithPath: text).standardizedFileURL.resolvingSymlinksInPath()
        guard let step = Self.step(ofName: named.lastPathComponent), step != newest,
            named.deletingLastPathComponent().path
                == URL(fileURLWithPath: path).standardizedFileURL.resolvingSymlinksInPath().path
        else { return }
        throw RunError(
            "--resume \(text): is an older checkpoint of this run; its newest one, of step \(newest), takes "
                + "precedence; to go back, use --resume-before \(step + 1), which sets the later ones aside"
        )
    }

    /// Stores the step of the last `--resume-before` that was carried out. A command that is repeated by a
    /// user, the launcher or Slurm must roll back only once.
    private var goneBackFile: String { (path as NSString).appendingPathComponent(".resume-before") }

    private func hasGoneBack(_ before: Int) -> Bool {
        FileManager.default.contents(atPath: goneBackFile) == Data("\(before)\n".utf8)
    }

    private func noteGoneBack(_ before: Int) throws(FileError) {
        try AtomicFile.write(Array("\(before)\n".utf8), to: goneBackFile)
    }

    // MARK: Loading

    /// What a failed read implies for a checkpoint. If ranks disagree, the highest value counts.
    private enum Verdict: Int {
        /// The contents are proven damaged; an older checkpoint may be usable.
        case damaged
        /// A storage fault; the checkpoint may be intact.
        case unreadable
        /// The checkpoint does not fit the run, or has another problem that an older one would share.
        case unusable

        init(_ error: any Error) {
            switch error {
            // The rank that failed contributes its own verdict.
            case is RemoteFailure: self = .damaged
            case let error where StorageFault.includes(error): self = .unreadable
            case let error as CheckpointError where error.kind == .damaged: self = .damaged
            default: self = .unusable
            }
        }
    }

    /// The reason for skipping a checkpoint.
    private struct Damage: Error {
        let message: String
    }

    /// Loads one checkpoint on all ranks, or determines that it is damaged. Collective.
    private func load(
        _ path: String, into buffers: [StateBuffer], _ table: TensorTable, _ communicator: Communicator,
        _ accept: (Checkpoint) throws -> Void, _ warn: (String) -> Void, _ pauses: [Double]
    ) throws -> Result<Checkpoint, Damage> {
        var pauses = pauses[...]
        while true {
            do {
                let checkpoint = try communicator.collectively("opening \(path)") {
                    let checkpoint = try Checkpoint(opening: path)
                    try accept(checkpoint)
                    try checkpoint.checkFits(buffers, table)
                    return checkpoint
                }
                try checkpoint.load(into: buffers, table, communicator)
                return .success(checkpoint)
            } catch let error as CommunicationError {
                throw error
            } catch {
                // `collectively` has thrown on every rank, so all ranks reach this point.
                let report = FailureReport(error)
                switch Verdict(rawValue: try communicator.allReduceMax(Verdict(error).rawValue)) {
                case .damaged: return .failure(Damage(message: report.message))
                case .unreadable:
                    guard let pause = pauses.popFirst() else { throw error }
                    if communicator.isRoot {
                        warn("\(report.message); reading the checkpoint again in \(duration(pause))")
                    }
                    usleep(UInt32(pause * 1e6))
                case .unusable, nil: throw error
                }
            }
        }
    }
}
