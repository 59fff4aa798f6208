/// Which hosts of a job keep failing and are left out for a while. It uses neither processes nor a clock; times are passed
/// in, in seconds of one monotonic clock.
///
/// A host fails when the job ends because ranks on it died, were silent or made no progress, or because the host no longer
/// answers. After the second failure in a row the host is excluded for one minute, and after each further one twice as
/// long, up to 32 minutes. A checkpoint that is committed while the host takes part clears its record.
package struct HostHealth: Sendable, Equatable {
    /// Seconds of the first exclusion, and of the longest.
    package static let exclusion = (first: 60.0, longest: 1920.0)
    /// Failures in a row from which on a host is excluded.
    package static let tolerated = 2

    private struct Record: Equatable {
        var failures = 0
        var excludedUntil = -Double.infinity
    }
    private var records: [String: Record] = [:]
    /// Hosts on which processes have died since the last checkpoint.
    private var suspects: Set<String> = []

    package init() {}

    /// The hosts that a failure is attributed to; empty where the job itself is to be suspected.
    ///
    /// A host that no longer answers is always at fault. Processes that died may have met a fault of the program, which
    /// then happens again on other hosts: only the first such host since the last checkpoint is blamed.
    ///
    /// - Parameters:
    ///   - unreachable: hosts of the job that no longer answer, or whose ranks were not heard.
    ///   - dead: hosts on which processes have died or hung, while the host still answers.
    ///   - all: the hosts of the job. Where all of them failed, or there is one alone, none stands out.
    package mutating func attribute(unreachable: Set<String>, dead: Set<String>, all: Set<String>) -> Set<
        String
    > {
        guard all.count > 1 else { return [] }
        if !unreachable.isEmpty { return unreachable.isSuperset(of: all) ? [] : unreachable }
        guard dead.count == 1 else { return [] }
        suspects.formUnion(dead)
        return suspects == dead ? dead : []
    }

    /// The job has ended because of these hosts.
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

    /// A checkpoint was committed while these hosts took part.
    package mutating func committed(_ hosts: Set<String>) {
        suspects = []
        for host in hosts { records[host] = nil }
    }

    /// Seconds for which a host is still excluded; nil where it is not.
    package func exclusion(of host: String, now: Double) -> Double? {
        guard let until = records[host]?.excludedUntil, until > now else { return nil }
        return until - now
    }

    /// The hosts to start the job on, in their order: those that are not excluded, and where they are too few, those
    /// too whose exclusion ends first.
    ///
    /// - Parameter isEnough: whether so many hosts are enough for the job to start.
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
