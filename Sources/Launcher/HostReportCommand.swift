import ArgumentParser
import Foundation
import Supervision

/// `disttrain host-report`: the command that `launch` and `doctor` run on every host.
struct HostReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "host-report", abstract: "Print a line of JSON about this host, for launch and doctor.",
        shouldDisplay: false)

    @Option(help: "Hosts to find the way to.") var peers = ""
    @Option(help: "A file that is there when the folder is shared.") var marker: String?
    @Option(help: "Starts of a run whose processes are killed.") var reap = ""

    func run() throws {
        for attempt in reap.split(separator: ",") { AttemptProcesses(String(attempt)).kill() }
        let report = HostReport.own(peers: peers.split(separator: ",").map(String.init), marker: marker)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        print(String(decoding: try encoder.encode(report), as: UTF8.self))
    }
}
