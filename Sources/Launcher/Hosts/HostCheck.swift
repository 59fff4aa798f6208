import DistTrain
import Foundation

/// Whether hosts can run one job together: what is compared before anything starts.
enum HostCheck {
    /// A fault, and the command or the change that mends it.
    struct Fault: Equatable {
        var line: String
        /// Whether ranks would fail, or go wrong, because of it.
        var isFatal: Bool
    }

    /// Seconds by which clocks may differ: times in records would mislead.
    private static let clockTolerance = 5.0

    /// - Parameters:
    ///   - marker: what the shared file must say; nil: not asked.
    ///   - askedAt: this host's clock when the reports came.
    static func faults(_ reports: [HostReport], marker: String?, folder: String?, askedAt: Double) -> [Fault]
    {
        guard let first = reports.first else { return [] }
        var faults: [Fault] = []
        for report in reports.dropFirst() {
            if report.programChecksum != first.programChecksum {
                faults.append(
                    Fault(
                        line:
                            "\(report.host): has disttrain \(report.programVersion) (\(report.programChecksum)), but "
                            + "\(first.host) has \(first.programVersion) (\(first.programChecksum)): install the same build",
                        isFatal: true))
            }
            if report.mpi != first.mpi {
                faults.append(
                    Fault(
                        line:
                            "\(report.host): has \(report.mpi), but \(first.host) has \(first.mpi): install the same",
                        isFatal: true))
            }
            if report.processor != first.processor {
                faults.append(
                    Fault(
                        line:
                            "\(report.host): its processor is \(report.processor), that of \(first.host) "
                            + "\(first.processor): the slower one sets the pace",
                        isFatal: false))
            }
        }
        for report in reports {
            if let marker, report.marker != marker {
                faults.append(
                    Fault(
                        line:
                            "\(report.host): does not see \(folder ?? "the run's folder") as \(first.host) does: put it on a "
                            + "file system that all hosts mount under this path",
                        isFatal: true))
            }
            if abs(report.time - askedAt) > clockTolerance {
                faults.append(
                    Fault(
                        line:
                            "\(report.host): its clock is \(duration(abs(report.time - askedAt))) "
                            + "\(report.time > askedAt ? "ahead" : "behind"): `timedatectl set-ntp true` there",
                        isFatal: false))
            }
        }
        return faults
    }
}
