import Foundation
import Support

/// Queries the state of all hosts in parallel, over ssh or Slurm.
package struct HostProbe {
    package let reach: MPIRun.Cluster.Reach
    /// The path of this program, which is the same on every host.
    package let program: String
    /// Timeout in seconds for a host that does not respond.
    package var timeout = 10.0

    package init(reach: MPIRun.Cluster.Reach, program: String, timeout: Double = 10.0) {
        (self.reach, self.program, self.timeout) = (reach, program, timeout)
    }

    package enum Answer {
        case report(HostReport)
        /// The reason why there is no report, on one line.
        case fault(String)
    }

    /// Returns the answers in the order of the hosts.
    ///
    /// - Parameters:
    ///   - marker: a file that hosts can read if they share the folder.
    ///   - reaping: attempts whose remaining processes are killed.
    package func ask(_ hosts: [String], marker: String?, reaping: [String] = []) -> [Answer] {
        var arguments = ["host-report", "--peers", hosts.joined(separator: ",")]
        if let marker { arguments += ["--marker", marker] }
        if !reaping.isEmpty { arguments += ["--reap", reaping.joined(separator: ",")] }
        let children = hosts.map { host -> ShortChild? in
            if isThisHost(host) { return ShortChild([program] + arguments) }
            switch reach {
            case .ssh(let words):
                let command = ([program] + arguments).map(shellQuoted).joined(separator: " ")
                // A remote shell other than ssh may not support `--`. `HostList` rejects names with a leading '-'.
                let isSSH = words.first.map { ($0 as NSString).lastPathComponent } == "ssh"
                return ShortChild(
                    words + ["-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
                        + (isSSH ? ["--"] : []) + [host, command])
            case .slurm:
                return ShortChild(
                    [
                        "srun", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=\(host)", "--input=none",
                        program,
                    ]
                        + arguments)
            }
        }
        let deadline = monotonicTime() + timeout
        return zip(hosts, children).map { host, child in
            guard let child else { return .fault("\(host): the remote command cannot be started") }
            return answer(of: host, child, by: deadline)
        }
    }

    private func answer(of host: String, _ child: ShortChild, by deadline: Double) -> Answer {
        guard let ending = child.finish(by: deadline) else {
            return .fault("\(host): no response within \(duration(timeout))")
        }
        if let line = ending.output.split(separator: "\n").last(where: { $0.hasPrefix("{") }),
            let report = try? JSONDecoder().decode(HostReport.self, from: Data(line.utf8))
        {
            return .report(report)
        }
        let words =
            ending.error.split(whereSeparator: \.isNewline).last.map {
                $0.trimmingCharacters(in: .whitespaces)
            } ?? "no output"
        switch ending.status {
        case 255: return .fault("\(host): cannot be reached: \(words)")
        case 126, 127:
            return .fault("\(host): no \(program) found: install this program there under the same path")
        default:
            return .fault("\(host): `\(program) host-report` exited with code \(ending.status): \(words)")
        }
    }
}

/// Whether the name refers to this host.
func isThisHost(_ name: String) -> Bool {
    let own = ProcessInfo.processInfo.hostName
    if name == "localhost" || name == "127.0.0.1" || name == own { return true }
    if own.hasPrefix(name + ".") || name.hasPrefix(own + ".") { return true }
    return Network.interfaces().contains { $0.address == name }
}

/// Monotonic time in seconds.
package func monotonicTime() -> Double { ProcessInfo.processInfo.systemUptime }
