import Foundation

/// The limit on open files and connections of this process.
package enum OpenFileLimit {
    /// Raises the soft limit to the hard limit. The usual soft limit of 1,024 exists for programs that use
    /// select(2).
    package static func raise() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0,
            limit.rlim_cur < limit.rlim_max
        else { return }
        limit.rlim_cur = limit.rlim_max
        // If this fails, the limit stays unchanged and `shortage` reports it.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// A message if `count` more files cannot be opened; nil if they can.
    ///
    /// - Parameter purpose: what they are used for, such as "connections to 2000 ranks".
    package static func shortage(of count: Int, for purpose: String) -> String? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
        let needed = open + count + reserve
        guard limit.rlim_cur < needed else { return nil }
        return "at most \(limit.rlim_cur) files may be open (ulimit -n), and about \(needed) are needed for "
            + "\(purpose): raise the limit"
    }

    /// Allowance for other files of a run: checkpoints, records, data.
    private static let reserve = 32
}
