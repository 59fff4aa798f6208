import Foundation
import Records

/// Takes apart what mpirun passes on of all ranks' output: a log for each rank, and a console for what everybody should
/// see, which is what rank 0 says and every rank's errors.
struct RankLogs {
    let folder: String
    private var output: PipeReader
    private var error: PipeReader
    private let writer = LogWriter()
    /// Rank 0's newest; nil before the first.
    private(set) var heartbeat: LauncherHeartbeat?
    /// The last lines of each rank, and of mpirun itself under -1, for the post-mortem.
    private(set) var lastLines: [Int: [String]] = [:]

    /// Why the logs cannot be written at the moment, in a line. A full disk must not keep a job from being restarted: the
    /// folder is made later, when there is room.
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

    /// Takes what has come.
    ///
    /// - Parameter show: gets what is for the console, a line each.
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

    /// Whether a line is part of what ranks said last.
    func hasSaid(_ line: String) -> Bool {
        lastLines.values.joined().contains { $0.range(of: line, options: .caseInsensitive) != nil }
    }

    /// "[1,3]<stderr>:text" is rank 3's; nil for what mpirun says itself.
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
