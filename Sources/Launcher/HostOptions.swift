import ArgumentParser
import Foundation
import Supervision

/// The hosts on which a job's ranks run; by default this machine.
struct HostOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Hosts, a name a line, `slots=4` after it: see cluster/hostfile.example.", valueName: "file"))
    var hostfile: String?

    @Option(help: ArgumentHelp("The same on the command line: node1:4,node2:4.", valueName: "hosts"))
    var host: String?

    @Flag(help: "The hosts, ranks and threads of the Slurm job that this runs in.")
    var slurm = false

    @Option(
        help: ArgumentHelp(
            "The hosts' common network, 10.0.0.0/16. Default: the interfaces by which they reach each other.",
            valueName: "cidr"))
    var network: String?

    @Option(help: ArgumentHelp("How other hosts are reached.", valueName: "command"))
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
