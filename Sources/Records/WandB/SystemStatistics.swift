import Foundation

/// The resource usage of this host and process, read from /proc and named as in Weights & Biases.
struct SystemStatistics {
    private var previous: (busy: Double, total: Double)?

    /// CPU and memory usage in percent, memory in MB. CPU usage covers the time since the previous call, so
    /// the first call does not return it.
    mutating func sample() -> [(name: String, value: Double)] {
        var found: [(name: String, value: Double)] = []
        if let times = Self.processorTimes() {
            if let previous, times.total > previous.total {
                found.append(("cpu", 100 * (times.busy - previous.busy) / (times.total - previous.total)))
            }
            previous = times
        }
        let memory = Self.kilobytes("/proc/meminfo")
        let process = Self.kilobytes("/proc/self/status")
        if let total = memory["MemTotal"], let available = memory["MemAvailable"], total > 0 {
            found.append(("memory_percent", 100 * (total - available) / total))
            found.append(("proc.memory.availableMB", available / 1024))
            if let resident = process["VmRSS"] {
                found.append(("proc.memory.rssMB", resident / 1024))
                found.append(("proc.memory.percent", 100 * resident / total))
            }
        }
        if let threads = process["Threads"] { found.append(("proc.cpu.threads", threads)) }
        return found
    }

    /// The host's total memory in bytes.
    static var memory: Int? { kilobytes("/proc/meminfo")["MemTotal"].map { Int($0) * 1024 } }

    /// Busy and total time of all CPUs since boot, in ticks.
    private static func processorTimes() -> (busy: Double, total: Double)? {
        guard let line = lines("/proc/stat").first, line.hasPrefix("cpu ") else { return nil }
        // Columns: user, nice, system, idle, iowait, irq, softirq, steal. The guest columns that follow are
        // already included in user and nice.
        let ticks = line.split(separator: " ").dropFirst().prefix(8).compactMap { Double($0) }
        guard ticks.count >= 5 else { return nil }
        let total = ticks.reduce(0, +)
        return (total - ticks[3] - ticks[4], total)
    }

    /// Parses lines such as "MemTotal:   24684084 kB".
    private static func kilobytes(_ path: String) -> [String: Double] {
        var found: [String: Double] = [:]
        for line in lines(path) {
            let words = line.split { $0 == ":" || $0 == " " || $0 == "\t" }
            if words.count >= 2, let value = Double(words[1]) { found[String(words[0])] = value }
        }
        return found
    }

    private static func lines(_ path: String) -> [String] {
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map(String.init)
    }
}
