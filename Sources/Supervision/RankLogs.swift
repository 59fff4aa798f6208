import Foundation
import Records

/// Splits the combined output of all ranks, which mpirun forwards, into one log per rank and a console
/// stream, which contains the output of rank 0 and the errors of every rank.
struct RankLogs {
    let folder: String
    private var output: PipeReader
    private var error: PipeReader
    private let writer = LogWriter()
    /// The latest heartbeat of rank 0; nil before the first.
    private(set) var heartbeat: LauncherHeartbeat?
    /// The last lines of each rank, and of mpirun under key -1, for the post-mortem.
    private(set) var lastLines: [Int: [String]] = [:]

    /// Why the logs currently cannot be written, on one line. A full disk must not prevent a restart: the
    /// folder is created later, when there is space.
    private(set) var problem: String?

    private static let kept = 15
    /// Seconds for the last lines to reach the disk.
    private static let lastWrite = 5.0

    init(folder: String, of child: ChildProcess) {
        self.folder = folder
        output = PipeReader(child.output)
        error = PipeReader(child.error)
        do {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        } catch {
            problem = "\(folder): cannot be created for the ranks' logs: \(error.localizedDescription)"
        }
    }

    /// Processes the output that is available.
    ///
    /// - Parameter show: receives each line for the console.
    mutating func take(isLast: Bool = false, show: (_ line: String, _ isError: Bool) -> Void) {
        output.read()
        error.read()
        var lines = output.takeLines().map { ($0, false) } + error.takeLines().map { ($0, true) }
        if isLast {
            lines += [(output.takeRest(), false), (error.takeRest(), true)].filter { !$0.0.isEmpty }
        }
        for (line, isError) in lines {
            let tagged = Self.parse(line)
            if let tagged, tagged.rank == 0, let found = LauncherHeartbeat(line: tagged.text) {
                heartbeat = found
                continue
            }
            keep(tagged?.text ?? line, tagged?.rank ?? -1)
            if let tagged {
                if tagged.rank == 0 || tagged.isError { show(tagged.text, tagged.isError) }
            } else if !line.isEmpty {
                show(line, isError)
            }
        }
        if isLast { writer.finish(within: Self.lastWrite) }
    }

    /// Whether the last lines of any rank contain a text, ignoring case.
    func hasSaid(_ line: String) -> Bool {
        lastLines.values.joined().contains { $0.range(of: line, options: .caseInsensitive) != nil }
    }

    /// Parses "[1,3]<stderr>:text", a line of rank 3; nil for a line of mpirun itself.
    static func parse(_ line: String) -> (rank: Int, isError: Bool, text: String)? {
        guard line.hasPrefix("["), let end = line.range(of: "]<std"), let colon = line.range(of: ">:"),
            end.lowerBound < colon.lowerBound
        else { return nil }
        let numbers = line[line.index(after: line.startIndex)..<end.lowerBound].split(separator: ",")
        guard numbers.count == 2, let rank = Int(numbers[1]) else { return nil }
        return (rank, line[end.upperBound..<colon.lowerBound] == "err", String(line[colon.upperBound...]))
    }

    private mutating func keep(_ text: String, _ rank: Int) {
        lastLines[rank, default: []].append(text)
        if lastLines[rank, default: []].count > Self.kept { lastLines[rank]?.removeFirst() }
        writer.append(text, to: "\(folder)/" + (rank < 0 ? "mpirun.log" : "rank-\(rank).log"))
    }
}
