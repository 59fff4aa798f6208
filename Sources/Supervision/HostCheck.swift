import Foundation
import Support

/// Compares hosts before a job starts, to determine whether they can run it together.
package struct HostCheck: Sendable {
    /// A problem with a host, and the command or change that fixes it.
    package struct Fault: Equatable, Sendable {
        /// The host, as the user names it.
        package var host: String
        package var line: String
        /// Whether ranks would fail or compute wrong results because of it.
        package var isFatal: Bool
    }

    /// A host's report under the name that the user gave it.
    package struct Subject: Sendable {
        package var name: String
        package var report: HostReport

        package init(_ name: String, _ report: HostReport) { (self.name, self.report) = (name, report) }
    }

    /// What must be identical on all hosts of a job.
    package struct Build: Hashable {
        package var checksum: String
        package var mpi: String
    }

    /// The file that shows whether a host shares the run's folder.
    package struct Marker: Sendable {
        package var text: String
        /// The folder that contains the file.
        package var folder: String

        package init(text: String, folder: String) { (self.text, self.folder) = (text, folder) }

        package init(_ file: (path: String, text: String)) {
            self.init(text: file.text, folder: (file.path as NSString).deletingLastPathComponent)
        }
    }

    package let faults: [Fault]

    /// The hosts that cannot run the job.
    package var badHosts: Set<String> { Set(faults.filter(\.isFatal).map(\.host)) }

    /// Maximum clock difference between hosts, in seconds. A larger one would make the times in the records
    /// misleading.
    private static let clockTolerance = 5.0

    /// The majority of hosts is the reference, so that one unfit host is not reported as a fault of all the
    /// others. Without a majority, this host decides, since it starts the ranks.
    ///
    /// - Parameters:
    ///   - own: the report of this host, which may not be one of `hosts`.
    ///   - marker: the expected contents of the shared file; nil: not checked.
    ///   - askedAt: this host's clock when the reports arrived, in seconds since 1970.
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
                            + "\(reference.report.mpi): install the same version", isFatal: true))
            }
            // mpirun runs on this host and must have the same release as the daemons on the other hosts.
            for host in hosts where own.mpi != reference.report.mpi && host.report.mpi != own.mpi {
                faults.append(
                    Fault(
                        host: host.name,
                        line:
                            "\(own.host): has \(own.mpi), but \(reference.name) has \(reference.report.mpi): "
                            + "install the same version", isFatal: true))
            }
            for host in hosts where host.report.processor != reference.report.processor {
                faults.append(
                    Fault(
                        host: host.name,
                        line: "\(host.name): its processor is \(host.report.processor), but that of "
                            + "\(reference.name) is \(reference.report.processor): the slower one determines the step time",
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
                        + "\(difference > 0 ? "ahead" : "behind"): run `timedatectl set-ntp true` there",
                    isFatal: false))
        }
        self.faults = faults
    }

    /// The first host that has the most common build; in a tie, one that has the same build as this host.
    private static func reference(_ hosts: [Subject], own: HostReport) -> Subject? {
        let builds = hosts.map { Build(checksum: $0.report.programChecksum, mpi: $0.report.mpi) }
        let counts = builds.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        let ownBuild = Build(checksum: own.programChecksum, mpi: own.mpi)
        let most = counts.values.max()
        let candidates = builds.indices.filter { counts[builds[$0]] == most }
        return (candidates.first { builds[$0] == ownBuild } ?? candidates.first).map { hosts[$0] }
    }

    /// Reports the hosts that do not see the marker, which this host wrote. If most of the other hosts do not
    /// see it, the fault is with this host. The job cannot run in either case, because the launcher reads
    /// what the ranks write.
    private static func blind(_ hosts: [Subject], own: HostReport, _ marker: Marker) -> [Fault] {
        let blind = hosts.filter { $0.report.marker != marker.text }
        let advice = "put the run on a file system that all hosts mount under this path"
        guard 2 * blind.count > hosts.count, hosts.count > 1 else {
            return blind.map {
                Fault(
                    host: $0.name,
                    line: "\($0.name): does not share \(marker.folder) with \(own.host): \(advice)",
                    isFatal: true)
            }
        }
        return blind.map {
            Fault(
                host: $0.name,
                line:
                    "\(own.host): does not share \(marker.folder) with \(blind.count) of \(hosts.count) hosts: \(advice)",
                isFatal: true)
        }
    }

    private static func version(_ host: Subject) -> String {
        "\(host.report.programVersion) (\(host.report.programChecksum))"
    }
}
