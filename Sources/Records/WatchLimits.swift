import Foundation

/// Timeouts, in seconds, after which ranks are considered dead or hung.
package struct WatchLimits: Sendable, Equatable {
    /// Heartbeat timeout: no message from a rank, because its host is down or unreachable or the process is
    /// stopped.
    package var silence = 15.0
    /// Progress timeout within a step, while all heartbeats arrive: the larger of `step` and `stepFactor`
    /// times the longest recent step.
    package var step = 20.0
    package var stepFactor = 5.0
    /// Until a rank has connected to the watcher at startup.
    package var joining = 30.0
    /// Before the second step is complete: covers building the model, plans and kernels, and the first step.
    package var start = 300.0
    /// Progress timeout in a phase that reads or writes files or draws samples: opening data, loading,
    /// saving, evaluating, exporting. Each part of a file read or written and each image drawn counts as
    /// progress.
    package var storage = 600.0

    package init() {}

    /// - Parameters:
    ///   - collectiveTimeout: the value of `--collective-timeout`. It replaces the progress timeout within a
    ///     step and, if it is shorter, the heartbeat timeout.
    ///   - storageTimeout: the value of `--storage-timeout`: the progress timeout in phases that use storage.
    package init(collectiveTimeout: Double?, storageTimeout: Double? = nil) {
        if let storageTimeout { storage = storageTimeout }
        guard let collectiveTimeout else { return }
        (step, stepFactor) = (collectiveTimeout, 0)
        silence = min(silence, collectiveTimeout)
    }

    /// The progress timeout for a job whose slowest rank is in `phase`.
    func standstill(in phase: RankActivity.Phase, stepSeconds: Double) -> Double {
        switch phase {
        case .start, .makeModel: return start
        case .work: return .infinity
        case .compute, .gather, .reduce, .agree, .update:
            return stepSeconds == 0 ? start : max(step, stepFactor * stepSeconds)
        case .openStage, .openData, .initialize, .openRun, .load, .openRecords, .data, .record, .sample,
            .save,
            .evaluate, .export, .end:
            return storage
        }
    }
}

/// Monitoring options and the time limit of a run, which `train` takes in addition to its configuration.
package struct Watching: Sendable {
    /// Progress timeout within a step, in seconds; nil derives it from the step time.
    package var collectiveTimeout: Double?
    /// Progress timeout in phases that use storage, in seconds; nil: 10 minutes.
    package var storageTimeout: Double?
    /// Seconds from now until the job must have ended; nil: the end of the Slurm job, if there is one.
    package var timeLimit: Double?

    package var limits: WatchLimits {
        WatchLimits(collectiveTimeout: collectiveTimeout, storageTimeout: storageTimeout)
    }

    package init(collectiveTimeout: Double? = nil, storageTimeout: Double? = nil, timeLimit: Double? = nil) {
        self.collectiveTimeout = collectiveTimeout
        self.storageTimeout = storageTimeout
        self.timeLimit = timeLimit ?? Self.slurmTimeLeft(ProcessInfo.processInfo.environment)
    }

    /// Seconds until the end of the Slurm job that this process runs in. Slurm provides that time in seconds
    /// since 1970.
    static func slurmTimeLeft(_ environment: [String: String]) -> Double? {
        environment["SLURM_JOB_END_TIME"].flatMap { Double($0) }.map { $0 - Date().timeIntervalSince1970 }
    }
}

/// Parses durations given on a command line.
package enum TimeSpan {
    /// Parses "90", "90s", "10m", "3h50m", "1d", and Slurm's "HH:MM:SS" and "D-HH:MM:SS" to seconds; nil for
    /// anything else.
    package static func seconds(_ text: String) -> Double? {
        if text.contains(":") { return slurm(text) }
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
        var total = 0.0
        var digits = ""
        var last = Double.infinity
        for character in text {
            if character.isASCII, character.isNumber || character == "." {
                digits.append(character)
                continue
            }
            // Units must be in descending order, each at most once.
            guard let unit = units[character], unit < last, let count = Double(digits) else { return nil }
            total += count * unit
            (digits, last) = ("", unit)
        }
        if digits.isEmpty { return last < .infinity ? total : nil }
        guard last == .infinity, let count = Double(digits) else { return nil }
        return count
    }

    private static func slurm(_ text: String) -> Double? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count <= 2, let clock = parts.last else { return nil }
        let days = parts.count == 2 ? Double(parts[0]) : 0
        let fields = clock.split(separator: ":", omittingEmptySubsequences: false).map { Double($0) }
        guard let days, (2...3).contains(fields.count), fields.allSatisfy({ $0 != nil && $0! >= 0 }) else {
            return nil
        }
        // MM:SS, HH:MM:SS, or D-HH:MM.
        let numbers = fields.compactMap { $0 }
        let padded = numbers.count == 3 ? numbers : parts.count == 2 ? numbers + [0] : [0] + numbers
        return days * 86400 + padded[0] * 3600 + padded[1] * 60 + padded[2]
    }
}
