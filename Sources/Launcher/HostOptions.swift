import ArgumentParser
import Foundation
import Supervision

/// The hosts on which a job's ranks run; by default this machine.
struct HostOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "File with one host per line, such as `node1 slots=4`; see cluster/hostfile.example.",
            valueName: "file"))
    var hostfile: String?

    @Option(help: ArgumentHelp("The hosts on the command line: node1:4,node2:4.", valueName: "hosts"))
    var host: String?

    @Flag(help: "Use the hosts, ranks and threads of the surrounding Slurm job.")
    var slurm = false

    @Option(
        help: ArgumentHelp(
            "Network shared by the hosts, such as 10.0.0.0/16. Default: detected from the routes between them.",
            valueName: "cidr"))
    var network: String?

    @Option(help: ArgumentHelp("Remote shell command.", valueName: "command"))
    var ssh = "ssh"

    func validate() throws {
        if [hostfile != nil, host != nil, slurm].filter({ $0 }).count > 1 {
            throw ValidationError("--hostfile, --host and --slurm: expected one of them")
        }
    }

    var networks: [String] { network.map { $0.split(separator: ",").map(String.init) } ?? [] }

    /// The Slurm allocation; nil without `--slurm`.
    func allocation(_ environment: [String: String]) throws -> SlurmAllocation? {
        guard slurm else { return nil }
        return try SlurmAllocation(environment) { try Slurm.names(of: $0) }
    }

    func place(_ allocation: SlurmAllocation?) throws -> Crew.Place {
        if let allocation { return .slurm(allocation) }
        let words = ssh.split(separator: " ").map(String.init)
        if let hostfile { return .ssh(try HostList.hostfile(hostfile), shell: words) }
        if let host { return .ssh(try HostList.list(host), shell: words) }
        return .here
    }
}

/// `disttrain host-report`: the command that `launch` and `doctor` run on every host.
struct HostReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "host-report", abstract: "Print a line of JSON about this host, for launch and doctor.",
        shouldDisplay: false)

    @Option(help: "Hosts to find routes to.") var peers = ""
    @Option(help: "A file that exists if the folder is shared.") var marker: String?
    @Option(help: "Attempts whose remaining processes are killed.") var reap = ""

    func run() throws {
        for attempt in reap.split(separator: ",") { AttemptProcesses(String(attempt)).kill() }
        let report = HostReport.own(peers: peers.split(separator: ",").map(String.init), marker: marker)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        print(String(decoding: try encoder.encode(report), as: UTF8.self))
    }
}
