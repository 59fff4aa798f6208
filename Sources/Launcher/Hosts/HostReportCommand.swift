import ArgumentParser
import DistTrain
import Foundation

/// `disttrain host-report`: what `launch` and `doctor` run on every host.
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

/// The processes of one start of a run that are on this host, known by their environment.
struct AttemptProcesses {
    let attempt: String

    init(_ attempt: String) { self.attempt = attempt }

    func find() -> [pid_t] {
        let own = getpid()
        let wanted = Data("\(LaunchRecord.attemptVariable)=\(attempt)".utf8)
        return ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { name in
            guard let process = pid_t(name), process != own,
                let environment = FileManager.default.contents(atPath: "/proc/\(name)/environ"),
                environment.split(separator: 0).contains(where: { $0 == wanted })
            else { return nil }
            return process
        }
    }

    /// Kills them, and removes the shared memory that they have had with each other.
    func kill() {
        guard !attempt.isEmpty else { return }
        for _ in 0..<20 {
            let processes = find()
            if processes.isEmpty { return }
            let segments = Set(processes.flatMap(sharedMemory))
            for process in processes { Foundation.kill(process, SIGKILL) }
            for segment in segments { unlink(segment) }
            usleep(50_000)
        }
    }

    /// Open MPI's files in /dev/shm that a process has mapped.
    private func sharedMemory(of process: pid_t) -> [String] {
        KernelFiles(root: "/").lines("proc/\(process)/maps").compactMap { line in
            guard let start = line.range(of: "/dev/shm/vader_segment") else { return nil }
            return String(line[start.lowerBound...])
        }
    }
}
