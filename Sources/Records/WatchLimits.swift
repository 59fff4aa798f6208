import Foundation

/// How long ranks may show nothing before they are taken for dead or hung, in seconds.
package struct WatchLimits: Sendable, Equatable {
    /// Without a word from a rank: its host is down or cut off, or the process is stopped.
    package var silence = 15.0
    /// Standing still within a step, with all ranks still talking; or, where that is more, so many of the longest step
    /// of late.
    package var step = 20.0
    package var stepFactor = 5.0
    /// Until a rank has connected to the watcher, at the start.
    package var joining = 30.0
    /// Before the second step has been made: making the model, plans and kernels, the first step.
    package var start = 300.0
    /// Without a sign of progress in a phase that reads or writes files, or draws samples: opening data, loading, saving,
    /// evaluating, exporting. Progress is a piece of a file read or written, an image drawn.
    package var storage = 600.0

    package init() {}

    /// - Parameters:
    ///   - collectiveTimeout: what the user sets by `--collective-timeout`: the limit within a step, and where it is less
    ///     than their own, of a silence.
    ///   - storageTimeout: what the user sets by `--storage-timeout`: the limit in phases that use storage.
    package init(collectiveTimeout: Double?, storageTimeout: Double? = nil) {
        if let storageTimeout { storage = storageTimeout }
        guard let collectiveTimeout else { return }
        (step, stepFactor) = (collectiveTimeout, 0)
        silence = min(silence, collectiveTimeout)
    }

    /// For a job whose slowest rank is in `phase`.
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

/// How a run is watched, and how long it may take: what `train` is told beside its configuration.
package struct Watching: Sendable {
    /// Seconds that ranks may stand still within a step; nil: as the steps' own time tells.
    package var collectiveTimeout: Double?
    /// Seconds without progress in phases that use storage; nil: 10 minutes.
    package var storageTimeout: Double?
    /// Seconds from now until the job must have ended; nil: until Slurm ends it, where it does.
    package var timeLimit: Double?

    package var limits: WatchLimits {
        WatchLimits(collectiveTimeout: collectiveTimeout, storageTimeout: storageTimeout)
    }

    package init(collectiveTimeout: Double? = nil, storageTimeout: Double? = nil, timeLimit: Double? = nil) {
        self.collectiveTimeout = collectiveTimeout
        self.storageTimeout = storageTimeout
        self.timeLimit = timeLimit ?? Self.slurmTimeLeft(ProcessInfo.processInfo.environment)
    }

    /// Slurm names the end of the job that this process is in, in seconds since 1970.
    static func slurmTimeLeft(_ environment: [String: String]) -> Double? {
        environment["SLURM_JOB_END_TIME"].flatMap { Double($0) }.map { $0 - Date().timeIntervalSince1970 }
    }
}

/// Times as people write them on a command line.
package enum TimeSpan {
    /// "90", "90s", "10m", "3h50m", "1d", and Slurm's "HH:MM:SS" and "D-HH:MM:SS", in seconds; nil for anything else.
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
            // Larger units first, each once.
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
