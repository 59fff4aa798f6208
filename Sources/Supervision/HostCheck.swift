import Foundation
import Support

/// Whether hosts can run one job together: what is compared before anything starts.
package struct HostCheck: Sendable {
    /// What is wrong with a host, and the command or the change that mends it.
    package struct Fault: Equatable, Sendable {
        /// As the user names the host.
        package var host: String
        package var line: String
        /// Whether ranks would fail, or go wrong, because of it.
        package var isFatal: Bool
    }

    /// A host under the name that the user gave it, and what it reports.
    package struct Subject: Sendable {
        package var name: String
        package var report: HostReport

        package init(_ name: String, _ report: HostReport) { (self.name, self.report) = (name, report) }
    }

    /// What must be the same on all hosts of a job.
    package struct Build: Hashable {
        package var checksum: String
        package var mpi: String
    }

    /// The file by which hosts prove that they share the run's folder.
    package struct Marker: Sendable {
        package var text: String
        /// The folder it lies in.
        package var folder: String

        package init(text: String, folder: String) { (self.text, self.folder) = (text, folder) }

        package init(_ file: (path: String, text: String)) {
            self.init(text: file.text, folder: (file.path as NSString).deletingLastPathComponent)
        }
    }

    package let faults: [Fault]

    /// The hosts that a job cannot run on.
    package var badHosts: Set<String> { Set(faults.filter(\.isFatal).map(\.host)) }

    /// Seconds by which clocks may differ: times in records would mislead.
    private static let clockTolerance = 5.0

    /// The majority defines what is right, so that one host in a bad state is not a fault of the others. Where there is no
    /// majority, this host decides: the ranks are started from here.
    ///
    /// - Parameters:
    ///   - own: this host's build, where it is none of the hosts.
    ///   - marker: what the shared file must say; nil: not asked.
    ///   - askedAt: this host's clock when the reports came.
    package init(_ hosts: [Subject], own: HostReport, marker: Marker?, askedAt: Double) {
        var faults: [Fault] = []
        if let reference = Self.reference(hosts, own: own) {
            for host in hosts where host.report.programChecksum != reference.report.programChecksum {
                faults.append(
                    Fault(
                        host: host.name,
                        line: "\(host.name): has disttrain \(Self.version(host)), but \(reference.name) has "
                            + "\(Self.version(reference)): install the same build", isFatal: true))
            }
            for host in hosts where host.report.mpi != reference.report.mpi {
                faults.append(
                    Fault(
                        host: host.name,
                        line: "\(host.name): has \(host.report.mpi), but \(reference.name) has "
                            + "\(reference.report.mpi): install the same", isFatal: true))
            }
            // mpirun runs here and must be of the same release as the hosts' daemons.
            for host in hosts where own.mpi != reference.report.mpi && host.report.mpi != own.mpi {
                faults.append(
                    Fault(
                        host: host.name,
                        line:
                            "\(own.host): has \(own.mpi), but \(reference.name) has \(reference.report.mpi): "
                            + "install the same", isFatal: true))
            }
            for host in hosts where host.report.processor != reference.report.processor {
                faults.append(
                    Fault(
                        host: host.name,
                        line: "\(host.name): its processor is \(host.report.processor), that of "
                            + "\(reference.name) \(reference.report.processor): the slower one sets the pace",
                        isFatal: false))
            }
        }
        if let marker { faults += Self.blind(hosts, own: own, marker) }
        for host in hosts where abs(host.report.time - askedAt) > Self.clockTolerance {
            let difference = host.report.time - askedAt
            faults.append(
                Fault(
                    host: host.name,
                    line: "\(host.name): its clock is \(duration(abs(difference))) "
                        + "\(difference > 0 ? "ahead" : "behind"): `timedatectl set-ntp true` there",
                    isFatal: false))
        }
        self.faults = faults
    }

    /// The first host whose build most hosts have; in a tie, one that has this host's build.
    private static func reference(_ hosts: [Subject], own: HostReport) -> Subject? {
        let builds = hosts.map { Build(checksum: $0.report.programChecksum, mpi: $0.report.mpi) }
        let counts = builds.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        let ownBuild = Build(checksum: own.programChecksum, mpi: own.mpi)
        let most = counts.values.max()
        let candidates = builds.indices.filter { counts[builds[$0]] == most }
        return (candidates.first { builds[$0] == ownBuild } ?? candidates.first).map { hosts[$0] }
    }

    /// Hosts that do not see the marker. This host wrote it; where most others do not see it, this host is the odd one,
    /// and the job cannot run either way: the launcher reads what the ranks write.
    private static func blind(_ hosts: [Subject], own: HostReport, _ marker: Marker) -> [Fault] {
        let blind = hosts.filter { $0.report.marker != marker.text }
        let advice = "put the run on a file system that all hosts mount under this path"
        guard 2 * blind.count > hosts.count, hosts.count > 1 else {
            return blind.map {
                Fault(
                    host: $0.name,
                    line: "\($0.name): does not see \(marker.folder) as \(own.host) does: \(advice)",
                    isFatal: true)
            }
        }
        return blind.map {
            Fault(
                host: $0.name,
                line:
                    "\(own.host): has another \(marker.folder) than \(blind.count) of \(hosts.count) hosts: \(advice)",
                isFatal: true)
        }
    }

    private static func version(_ host: Subject) -> String {
        "\(host.report.programVersion) (\(host.report.programChecksum))"
    }
}
