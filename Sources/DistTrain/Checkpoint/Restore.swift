import Foundation
import LDMModel

/// Where a run starts from: `--resume auto|none|PATH`.
public enum Resume: Sendable, Equatable, CustomStringConvertible {
    /// From the newest checkpoint of the run's own folder that is whole, or from nothing where there is none.
    case auto
    /// From nothing.
    case none
    /// From a checkpoint, or from the newest of another run.
    case path(String)

    public init(_ text: String, before: Int? = nil) {
        switch text {
        case "auto": self = .auto
        case "none": self = .none
        default: self = .path(text)
        }
    }

    public var description: String {
        switch self {
        case .auto: return "auto"
        case .none: return "none"
        case .path(let path): return path
        }
    }
}

extension CheckpointFolder {
    /// Puts a run back where a checkpoint left it. Collective.
    ///
    /// The newest checkpoint is taken whose manifest and files all agree with their checksums; one that does not is
    /// skipped with a warning. One that is whole but of another model is an error: an older one would not fit
    /// either. Checkpoints after the one taken are set aside, since their steps will be saved anew.
    ///
    /// - Parameters:
    ///   - buffers: filled; undefined where this throws.
    ///   - accept: looks at a checkpoint's manifest before anything else happens, on every rank; what it throws ends
    ///     the resume.
    ///   - warn: told, on rank 0 alone, of what was skipped or set aside, a line each.
    /// - Returns: nil where there is nothing to resume from.
    /// - Throws: `CheckpointError` where there are checkpoints but none can be used. Starting over without a word
    ///   would throw the run away.
    public func restore(
        _ resume: Resume, into buffers: [StateBuffer], _ table: TensorTable, communicator: any Communicator,
        accept: (Checkpoint) throws -> Void = { _ in }, warn: (String) -> Void
    ) throws -> Checkpoint? {
        let candidates = try communicator.fromRoot("looking for checkpoints") {
            try self.candidates(for: resume)
        }
        guard let newest = candidates.first else { return nil }
        var firstProblem = ""
        for path in candidates {
            switch try attempt(path, into: buffers, table, communicator, accept) {
            case .success(let checkpoint):
                try setAside(after: checkpoint.manifest.step, communicator, warn)
                return checkpoint
            case .failure(let problem):
                if firstProblem.isEmpty { firstProblem = problem.message }
                if communicator.isRoot, path != candidates.last {
                    warn("skipping checkpoint \((path as NSString).lastPathComponent): \(problem.message)")
                }
            }
        }
        throw CheckpointError(
            .damaged, newest,
            candidates.count == 1
                ? "cannot be used: \(firstProblem)"
                : "none of \(candidates.count) checkpoints can be used; the newest: \(firstProblem)")
    }

    /// Sets aside what is of later steps than the one that the run goes on from. Collective.
    ///
    /// - Parameter warn: told, on rank 0 alone, of each, a line each.
    func setAside(after step: Int, _ communicator: any Communicator, _ warn: (String) -> Void) throws {
        let moved = try communicator.fromRoot("setting aside what \(path) has of later steps") {
            try setAside(
                after: step, id: String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16))
        }
        if communicator.isRoot {
            for path in moved { warn("set aside as \(path): the run goes on from before it") }
        }
    }

    /// The checkpoints to try, newest first.
    func candidates(for resume: Resume) throws(CheckpointError) -> [String] {
        switch resume {
        case .none: return []
        case .auto: return try steps().reversed().map { path(step: $0) }
        case .path(let path):
            return try Self.checkpoints(at: path, orElse: "auto, none, ")
        }
    }

    /// Loads one checkpoint on all ranks, or says why the next is to be tried.
    private func attempt(
        _ path: String, into buffers: [StateBuffer], _ table: TensorTable, _ communicator: any Communicator,
        _ accept: (Checkpoint) throws -> Void
    ) throws -> Result<Checkpoint, FailureOfCheckpoint> {
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
            // Every rank is here: `collectively` has thrown on all. They must agree on whether to go on.
            let isFinal = try communicator.anyAgree(
                error is RunError || (error as? CheckpointError)?.kind == .incompatible)
            if isFinal { throw error }
            return .failure(FailureOfCheckpoint(message: FailureReport(error).message))
        }
    }
}

/// Why a checkpoint was passed over.
private struct FailureOfCheckpoint: Error {
    let message: String
}
