import ArgumentParser
import Communication
import Foundation
import Supervision
import Support

/// `disttrain doctor`: diagnoses the hosts of a job and suggests fixes.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Check this machine, or the hosts of a job, before a long run.",
        discussion: """
            Queries the program, Open MPI, processor, memory, disk, clock and network interfaces of every host, and \
            its access to the run's folder; then starts one rank per host and measures the network between every pair. \
            Each fault is reported with a fix. Exit code 1 if a run would fail.

              disttrain doctor
              disttrain doctor --hostfile hosts --run runs/celeba_hq_256
              disttrain doctor --slurm
            """)

    @OptionGroup(title: "Hosts") var hosts: HostOptions

    @Option(
        name: .customLong("run"),
        help: ArgumentHelp("The folder of the planned run.", valueName: "folder"))
    var folder = "runs"

    func run() throws {
        let environment = ProcessInfo.processInfo.environment
        var checks = Checks()
        checkHere(environment, &checks)
        let place = try hosts.place(try hosts.allocation(environment))
        if case .here = place {} else { try checkHosts(place, environment, &checks) }
        print(checks.summary)
        if checks.failures > 0 { throw ExitCode(ExitStatus.crash) }
    }

    // MARK: This host

    private func checkHere(_ environment: [String: String], _ checks: inout Checks) {
        let placement = Placement(machine: Machine())
        checks.note("processor", "\(Program.processor), \(placement.usableCores) usable cores")
        for warning in KernelLimits.warnings(environment: environment) { checks.warn("kernels", warning) }
        do {
            let path = try MPIRun.find(path: environment["PATH"])
            checks.pass("Open MPI", "\(Program.mpiVersion), started by \(path)")
        } catch {
            checks.fail("Open MPI", FailureReport(error).message)
        }
        if !sharedMemorySingleCopyWorks() {
            checks.warn(
                "shared memory",
                "ranks cannot read each other's memory and copy twice; in a container: `docker run --cap-add SYS_PTRACE`"
            )
        }
        var shared = statvfs()
        if statvfs("/dev/shm", &shared) == 0 {
            let free = Int((UInt64(shared.f_bavail) * UInt64(shared.f_frsize)) >> 20)
            if free < 64 * placement.ranks {
                checks.fail(
                    "/dev/shm",
                    "\(free) MiB free, expected \(64 * placement.ranks); in a container: `docker run --shm-size 2g`"
                )
            } else {
                checks.pass("/dev/shm", "\(free) MiB free")
            }
        }
    }

    // MARK: Other hosts

    private func checkHosts(_ place: Crew.Place, _ environment: [String: String], _ checks: inout Checks)
        throws
    {
        let crew = Crew(
            place: place, ranks: nil, threads: 1, networks: hosts.networks,
            mpirun: try MPIRun.find(path: environment["PATH"]), program: try ownExecutable(),
            environment: environment)
        let entries: [HostEntry]
        let reach: MPIRun.Cluster.Reach
        switch place {
        case .here: return
        case .ssh(let list, let shell): (entries, reach) = (list, .ssh(shell))
        case .slurm(let allocation): (entries, reach) = (allocation.hosts, .slurm)
        }
        let job = TrainingJob(program: [], run: folder)
        let marker = job.marker()
        defer { if let marker { unlink(marker.path) } }
        let answers = HostProbe(reach: reach, program: crew.program)
            .ask(entries.map(\.name), marker: marker?.path)
        let askedAt = Date().timeIntervalSince1970
        var present: [(entry: HostEntry, report: HostReport)] = []
        for (entry, answer) in zip(entries, answers) {
            switch answer {
            case .report(let report):
                present.append((entry, report))
                let disk = report.freeDiskMiB.map { ", \($0 >> 10) GiB free for the run" } ?? ""
                checks.pass(
                    entry.name,
                    "\(report.usableCores) cores, \(report.processor), \(report.freeMemoryMiB >> 10) GiB free memory\(disk)"
                )
            case .fault(let line): checks.fail(entry.name, HostAdvice.withFix(line))
            }
        }
        let reports = present.map(\.report)
        let check = HostCheck(
            present.map { HostCheck.Subject($0.entry.name, $0.report) },
            own: HostReport.own(peers: [], marker: nil), marker: marker.map(HostCheck.Marker.init),
            askedAt: askedAt)
        for fault in check.faults {
            if fault.isFatal { checks.fail("hosts", fault.line) } else { checks.warn("hosts", fault.line) }
        }
        guard present.count > 1, checks.failures == 0 else { return }
        let networks = hosts.networks.isEmpty ? Network.shared(reports) : hosts.networks
        checks.pass("network", networks.isEmpty ? "chosen by Open MPI" : networks.joined(separator: ", "))
        measure(crew, present.map(\.entry.name), reach, networks, &checks)
    }

    /// Measures the network between the hosts, with one rank per host.
    private func measure(
        _ crew: Crew, _ names: [String], _ reach: MPIRun.Cluster.Reach, _ networks: [String],
        _ checks: inout Checks
    ) {
        let mpirun = MPIRun(
            executable: crew.mpirun,
            placement: Placement(ranks: 1, threads: 1, usableCores: 1, binding: .none),
            program: [crew.program, "link-report"], singleCopy: sharedMemorySingleCopyWorks(),
            isRoot: geteuid() == 0, inherited: crew.environment,
            cluster: MPIRun.Cluster(
                hosts: names.map { MPIRun.Cluster.Share($0, ranks: 1) }, reach: reach, networks: networks))
        let timeout = 30.0 + 2 * Double(names.count * names.count)
        guard
            let child = ShortChild(
                [mpirun.executable] + mpirun.arguments,
                environment: crew.environment.merging(mpirun.environment) { _, ours in ours }),
            let ending = child.finish(by: monotonicTime() + timeout)
        else {
            return checks.fail(
                "MPI",
                "ranks on \(names.count) hosts could not connect within \(duration(timeout)): check for a firewall between "
                    + "them and for a wrong --network; Open MPI needs all TCP ports open\(networks.isEmpty ? "" : " on " + networks.joined(separator: ", "))"
            )
        }
        guard let line = ending.output.split(separator: "\n").last(where: { $0.hasPrefix("{") }),
            let report = try? JSONDecoder().decode(LinkReports.self, from: Data(line.utf8))
        else {
            let words = (ending.error + ending.output).split(whereSeparator: \.isNewline).last ?? "no output"
            return checks.fail(
                "MPI", "mpirun with one rank per host exited with code \(ending.status): \(words)")
        }
        checks.add(report)
    }
}

/// Prints findings as they are made, one line each.
struct Checks {
    private(set) var failures = 0
    private var warnings = 0

    mutating func pass(_ what: String, _ line: String) { show("ok", what, line) }

    func note(_ what: String, _ line: String) { show("", what, line) }

    mutating func warn(_ what: String, _ line: String) {
        warnings += 1
        show("warning", what, line)
    }

    mutating func fail(_ what: String, _ line: String) {
        failures += 1
        show("FAULT", what, line)
    }

    /// Warns about pairs that are much slower than the others.
    mutating func add(_ report: LinkReports) {
        let speeds = report.links.map(\.bytesPerSecond).sorted()
        let median = speeds[speeds.count / 2]
        for link in report.links {
            let line = String(
                format: "%.0f µs, %.2f Gbit/s", link.latencySeconds * 1e6, link.bytesPerSecond * 8e-9)
            let pair = "\(link.first) – \(link.second)"
            if link.bytesPerSecond < 0.5 * median {
                warn(pair, line + ": less than half of the median; check cable, port and duplex")
            } else {
                pass(pair, line)
            }
        }
        pass(
            "all-reduce",
            String(
                format: "%.3f s for %d MB over all hosts, %.2f Gbit/s", report.reduceSeconds,
                report.reducedBytes >> 20, Double(report.reducedBytes) * 8e-9 / report.reduceSeconds))
    }

    var summary: String {
        func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
        if failures == 0, warnings == 0 { return "No faults." }
        return "\(count(failures, "fault")), \(count(warnings, "warning"))."
    }

    private func show(_ verdict: String, _ what: String, _ line: String) {
        func padded(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(0, width - text.count))
        }
        print("\(padded(verdict, 7))  \(padded(what, 14))  \(line)")
    }
}

/// Suggests the command that fixes the reason why a host does not respond.
enum HostAdvice {
    static func withFix(_ line: String) -> String {
        let host = line.prefix { $0 != ":" }
        let cures = [
            ("Permission denied", "`ssh-copy-id \(host)`"),
            (
                "Host key verification failed",
                "`ssh-keyscan \(host) >> ~/.ssh/known_hosts`, after verifying the key"
            ),
            ("Could not resolve hostname", "correct the hostfile, or add the host to /etc/hosts"),
            ("Connection refused", "`sudo systemctl start ssh` on that host"),
            ("timed out", "check that the host is up and that no firewall blocks port 22"),
            ("No route to host", "check that the host is up and on the same network"),
        ]
        let cure = cures.first { line.contains($0.0) }?.1
        return cure.map { "\(line): \($0)" } ?? line
    }
}
