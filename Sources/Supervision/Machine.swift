import Foundation

/// The processors that this process may use, as reported by Linux.
package struct Machine: Equatable, Sendable {
    /// Physical cores; each lists its processors (hardware threads) on which this process may run.
    package var cores: [[Int]]
    /// CPU quota of the control group, in processors; nil if there is no limit.
    package var quota: Double?
    /// Number of NUMA domains. Threads that migrate between them are slow.
    package var memoryDomains: Int
    /// Whether the process may use all processors of the machine.
    package var isWhole: Bool

    package init(cores: [[Int]], quota: Double? = nil, memoryDomains: Int = 1, isWhole: Bool = true) {
        (self.cores, self.quota) = (cores, quota)
        (self.memoryDomains, self.isWhole) = (memoryDomains, isWhole)
    }

    /// The number of compute-bound threads that run at full speed: the physical cores, since the hardware
    /// threads of a core share its vector units, limited by the quota of the control group.
    package var usableCores: Int {
        let paid = quota.map { max(1, Int($0)) } ?? cores.count
        return max(1, min(cores.count, paid))
    }

    /// Detects this machine.
    ///
    /// - Parameter root: the folder that contains /proc and /sys; another folder in tests.
    package init(root: String = "/") {
        let files = KernelFiles(root: root)
        let online = files.list("sys/devices/system/cpu/online")
        let status = files.lines("proc/self/status")
        let allowed =
            status.first { $0.hasPrefix("Cpus_allowed_list:") }
            .map { parseProcessorList(String($0.drop { $0 != ":" }.dropFirst())) } ?? online
        let processors = allowed.isEmpty ? [0] : allowed

        var cores: [[Int]] = []
        var seen = Set<Int>()
        for processor in processors where !seen.contains(processor) {
            let siblings = files.list("sys/devices/system/cpu/cpu\(processor)/topology/thread_siblings_list")
            let core = siblings.contains(processor) ? siblings.filter(processors.contains) : [processor]
            seen.formUnion(core)
            cores.append(core)
        }
        self.init(
            cores: cores,
            quota: cpuQuota(files),
            memoryDomains: max(1, files.list("sys/devices/system/node/has_cpu").count),
            isWhole: online.allSatisfy(processors.contains))
    }
}

/// Parses "0-3,8,10-11" into numbers and skips parts that are malformed.
func parseProcessorList(_ text: String) -> [Int] {
    text.split(separator: ",").flatMap { part -> [Int] in
        let ends = part.split(separator: "-").map { Int($0.trimmingCharacters(in: .whitespaces)) }
        guard let first = ends.first ?? nil, let last = ends.last ?? nil, first <= last else { return [] }
        return Array(first...last)
    }
}

/// The smallest CPU limit between the process's control group and the root, in processors.
private func cpuQuota(_ files: KernelFiles) -> Double? {
    var limits: [Double] = []
    for line in files.lines("proc/self/cgroup") {
        // "0::/user.slice" in version 2, "4:cpu,cpuacct:/docker/1234" in version 1.
        let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        guard fields.count == 3 else { continue }
        let controllers = fields[1].split(separator: ",")
        let isVersion2 = fields[0] == "0"
        guard isVersion2 || controllers.contains("cpu") else { continue }
        let mount = "sys/fs/cgroup" + (isVersion2 ? "" : "/" + fields[1])
        // In a container the path is often that of the host and does not exist here; the root of the mount
        // still applies.
        var path = fields[2].split(separator: "/").map(String.init)
        while true {
            let folder = ([mount] + path).joined(separator: "/")
            if let limit = isVersion2 ? version2Limit(files, folder) : version1Limit(files, folder) {
                limits.append(limit)
            }
            if path.popLast() == nil { break }
        }
    }
    return limits.min()
}

/// cpu.max contains "QUOTA PERIOD" in microseconds, or "max PERIOD".
private func version2Limit(_ files: KernelFiles, _ folder: String) -> Double? {
    let fields = files.lines("\(folder)/cpu.max").first?.split(separator: " ") ?? []
    guard fields.count == 2, let quota = Double(fields[0]), let period = Double(fields[1]), period > 0 else {
        return nil
    }
    return quota / period
}

private func version1Limit(_ files: KernelFiles, _ folder: String) -> Double? {
    guard let quota = files.lines("\(folder)/cpu.cfs_quota_us").first.flatMap({ Double($0) }), quota > 0,
        let period = files.lines("\(folder)/cpu.cfs_period_us").first.flatMap({ Double($0) }), period > 0
    else { return nil }
    return quota / period
}

/// Small text files of the kernel. A missing file reads as empty.
package struct KernelFiles {
    package let root: String

    package init(root: String) {
        self.root = root
    }

    package func lines(_ path: String) -> [Substring] {
        let url = URL(fileURLWithPath: root).appendingPathComponent(path)
        guard let data = try? Data(contentsOf: url) else { return [] }
        return String(decoding: data, as: UTF8.self).split(separator: "\n")
    }

    package func list(_ path: String) -> [Int] {
        parseProcessorList(String(lines(path).first ?? ""))
    }
}
