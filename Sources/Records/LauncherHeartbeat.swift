/// The heartbeat line that rank 0 prints every second, by which a launcher detects that the job is alive.
/// mpirun forwards the lines from any host, so no disk is involved.
package struct LauncherHeartbeat: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case watching
        /// Monitoring has ended normally; no heartbeat follows, and the processes are about to exit.
        case done
        /// Rank 0 aborts the job for this reason; no heartbeat follows.
        case lost(String)
    }

    package var beat: Int
    package var state: State

    package init(_ beat: Int, _ state: State = .watching) { (self.beat, self.state) = (beat, state) }

    private static let prefix = "disttrain-heartbeat"
    private static let (done, lost) = ("done", "lost")

    /// The line without its line feed.
    package var line: String {
        switch state {
        case .watching: "\(Self.prefix) \(beat)"
        case .done: "\(Self.prefix) \(beat) \(Self.done)"
        case .lost(let reason): "\(Self.prefix) \(beat) \(Self.lost) \(reason)"
        }
    }

    /// Returns nil for any other line.
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
