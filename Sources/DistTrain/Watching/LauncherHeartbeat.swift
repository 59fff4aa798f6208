/// What rank 0 prints each second for a launcher, which so knows that the job lives. mpirun carries the lines from any
/// host, and no disk is involved.
public struct LauncherHeartbeat: Sendable, Equatable {
    public var beat: Int
    /// The watching has ended in good order, and no heartbeat follows: the processes are about to end.
    public var isLast: Bool

    public init(_ beat: Int, isLast: Bool = false) { (self.beat, self.isLast) = (beat, isLast) }

    private static let prefix = "disttrain-heartbeat "
    private static let suffix = " last"

    /// Without an end of line.
    public var line: String { Self.prefix + String(beat) + (isLast ? Self.suffix : "") }

    /// nil for any other line.
    public init?(line: String) {
        guard line.hasPrefix(Self.prefix) else { return nil }
        let isLast = line.hasSuffix(Self.suffix)
        let digits = line.dropFirst(Self.prefix.count).dropLast(isLast ? Self.suffix.count : 0)
        guard let beat = Int(digits) else { return nil }
        self.init(beat, isLast: isLast)
    }
}
