import Foundation

/// How many files and connections a process may have open.
package enum OpenFileLimit {
    /// Raises the soft limit to the hard limit: the usual 1,024 is for programs that use select(2).
    package static func raise() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0,
            limit.rlim_cur < limit.rlim_max
        else { return }
        limit.rlim_cur = limit.rlim_max
        // Where that fails, the limit stays what it was, and `shortage` says so.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// A line that says that so many more cannot be opened; nil where they can.
    ///
    /// - Parameter purpose: what they are for, such as "connections to 2000 ranks".
    package static func shortage(of count: Int, for purpose: String) -> String? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
        let needed = open + count + reserve
        guard limit.rlim_cur < needed else { return nil }
        return "at most \(limit.rlim_cur) files may be open (ulimit -n), and about \(needed) are needed for "
            + "\(purpose): raise the limit"
    }

    /// Files that a run opens besides: checkpoints, records, data.
    private static let reserve = 32
}
