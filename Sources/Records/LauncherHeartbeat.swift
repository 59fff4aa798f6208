/// What rank 0 prints each second for a launcher, which so knows that the job lives. mpirun carries the lines from any
/// host, and no disk is involved.
package struct LauncherHeartbeat: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case watching
        /// The watching has ended in good order, and no heartbeat follows: the processes are about to end.
        case done
        /// Rank 0 ends the job, for this reason, and no heartbeat follows.
        case lost(String)
    }

    package var beat: Int
    package var state: State

    package init(_ beat: Int, _ state: State = .watching) { (self.beat, self.state) = (beat, state) }

    private static let prefix = "disttrain-heartbeat"
    private static let (done, lost) = ("done", "lost")

    /// Without an end of line.
    package var line: String {
        switch state {
        case .watching: "\(Self.prefix) \(beat)"
        case .done: "\(Self.prefix) \(beat) \(Self.done)"
        case .lost(let reason): "\(Self.prefix) \(beat) \(Self.lost) \(reason)"
        }
    }

    /// nil for any other line.
    package init?(line: String) {
        let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        guard words.count > 1, words[0] == Self.prefix, let beat = Int(words[1]) else { return nil }
        switch words.count {
        case 2: self.init(beat)
        case 3 where words[2] == Self.done: self.init(beat, .done)
        case 4 where words[2] == Self.lost: self.init(beat, .lost(String(words[3])))
        default: return nil
        }
    }
}
