/// Tracks which hosts of a job fail repeatedly and are excluded for a while. It uses neither processes nor a
/// clock: times are passed in, as seconds on one monotonic clock.
///
/// A host fails when the job ends because ranks on it died, stopped responding or made no progress, or
/// because the host itself no longer responds. After the second consecutive failure the host is excluded for
/// one minute; each further failure doubles the time, up to 32 minutes. A checkpoint that is committed while
/// the host takes part clears its record.
package struct HostHealth: Sendable, Equatable {
    /// First and longest exclusion, in seconds.
    package static let exclusion = (first: 60.0, longest: 1920.0)
    /// Number of consecutive failures from which on a host is excluded.
    package static let tolerated = 2

    private struct Record: Equatable {
        var failures = 0
        var excludedUntil = -Double.infinity
    }
    private var records: [String: Record] = [:]
    /// Hosts on which processes have died since the last checkpoint.
    private var suspects: Set<String> = []

    package init() {}

    /// The hosts that a failure is attributed to; empty if the job itself is the likely cause.
    ///
    /// A host that no longer responds is always considered faulty. Processes that died may have hit a bug in
    /// the program, which would recur on other hosts: only the first such host since the last checkpoint is
    /// considered faulty.
    ///
    /// - Parameters:
    ///   - unreachable: hosts of the job that no longer respond, or whose ranks sent no heartbeat.
    ///   - dead: hosts on which processes have died or hung, while the host still responds.
    ///   - all: the hosts of the job. If all of them failed, or there is only one, the failure is not
    ///     attributed to a host.
    package mutating func attribute(unreachable: Set<String>, dead: Set<String>, all: Set<String>) -> Set<
        String
    > {
        guard all.count > 1 else { return [] }
        if !unreachable.isEmpty { return unreachable.isSuperset(of: all) ? [] : unreachable }
        guard dead.count == 1 else { return [] }
        suspects.formUnion(dead)
        return suspects == dead ? dead : []
    }

    /// Records that the job has ended because of these hosts.
    package mutating func failed(_ hosts: Set<String>, now: Double) {
        for host in hosts {
            var record = records[host, default: Record()]
            record.failures += 1
            if record.failures >= Self.tolerated {
                let doublings = min(record.failures - Self.tolerated, 20)
                record.excludedUntil =
                    now + min(Self.exclusion.longest, Self.exclusion.first * Double(1 << doublings))
            }
            records[host] = record
        }
    }

    /// Records that a checkpoint was committed while these hosts took part.
    package mutating func committed(_ hosts: Set<String>) {
        suspects = []
        for host in hosts { records[host] = nil }
    }

    /// Seconds until the host is no longer excluded; nil if it is not excluded.
    package func exclusion(of host: String, now: Double) -> Double? {
        guard let until = records[host]?.excludedUntil, until > now else { return nil }
        return until - now
    }

    /// The hosts to start the job on, in their original order: those that are not excluded and, while these
    /// are too few, additionally those whose exclusion ends first.
    ///
    /// - Parameter isEnough: whether the given hosts are enough to start the job.
    package func admitted(_ hosts: [String], now: Double, isEnough: ([String]) -> Bool) -> [String] {
        var left = hosts.filter { exclusion(of: $0, now: now) == nil }
        let excluded = hosts.filter { exclusion(of: $0, now: now) != nil }
            .sorted { (exclusion(of: $0, now: now) ?? 0) < (exclusion(of: $1, now: now) ?? 0) }
        for host in excluded where !isEnough(left) {
            left = hosts.filter { left.contains($0) || $0 == host }
        }
        return left
    }
}
