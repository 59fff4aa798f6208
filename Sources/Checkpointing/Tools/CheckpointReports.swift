import Foundation
import Support

/// `disttrain checkpoint list`: lists the checkpoints of a run, one per line, from their manifests and their
/// files' sizes.
package struct CheckpointList {
    let folder: CheckpointFolder

    package init(run path: String) throws(CheckpointError) { folder = try CheckpointFolder.named(path) }

    package func lines() throws(CheckpointError) -> [String] {
        let steps = try folder.steps()
        guard !steps.isEmpty else { return ["\(folder.path): no checkpoints yet"] }
        var rows = [["step", "saved", "size", "ranks", "metric", "state"]]
        for step in steps { rows.append(row(step)) }
        return columns(rows) + (try leftovers())
    }

    private func row(_ step: Int) -> [String] {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint(manifestOf: folder.path(step: step))
            let manifest = checkpoint.manifest
            let problems = checkpoint.structuralProblems()
            let more = problems.count > 1 ? " and \(problems.count - 1) more" : ""
            return [
                String(step), timeText(manifest.savedAt), byteText(checkpoint.bytes),
                String(manifest.worldSize),
                manifest.metric.map { "\($0.name) \(metricText($0.value))" } ?? "-",
                problems.first.map { "damaged: \(checkpoint.relativeMessage($0))\(more)" } ?? "complete",
            ].map { $0.oneLine() }
        } catch {
            let state = error.kind == .damaged ? "damaged" : "unreadable"
            return [
                String(step), "-", "-", "-", "-",
                "\(state): \((error.path as NSString).lastPathComponent) \(error.detail)".oneLine(),
            ]
        }
    }

    /// Describes the entries of the folder that are not checkpoints.
    private func leftovers() throws(CheckpointError) -> [String] {
        let names = try folder.entries().sorted()
        return [
            (
                ".partial-",
                "being written or deleted, or left by a run that died; deleted when the run resumes"
            ),
            (
                "superseded-",
                "a later step, set aside when the run resumed from an earlier one; delete it if it is not needed"
            ),
        ].flatMap { prefix, what in
            names.filter { $0.hasPrefix(prefix) }.map { "\($0.oneLine()): \(what)" }
        }
    }
}

extension Checkpoint {
    /// Total size in bytes of all files in the manifest.
    var bytes: Int { manifest.files.reduce(0) { $0 &+ $1.bytes } }
}

/// `disttrain checkpoint inspect`: shows the contents of a checkpoint's manifest.
package struct CheckpointSummary {
    let checkpoint: Checkpoint

    /// - Parameter path: a checkpoint, or a run, whose newest checkpoint is used.
    package init(of path: String) throws(CheckpointError) { checkpoint = try Checkpoint.newest(at: path) }

    /// The manifest, including its checksum.
    package func json() throws(CheckpointError) -> String {
        do throws(JSONError) {
            return String(decoding: try checkpoint.manifest.encoded(), as: UTF8.self)
        } catch {
            throw CheckpointError(.damaged, checkpoint.path, error.description)
        }
    }

    package func lines() -> [String] {
        let (manifest, run) = (checkpoint.manifest, checkpoint.manifest.run)
        let parameters = manifest.parameters.bytes / MemoryLayout<Float>.stride
        let facts = [
            ("run", "\(run.name), seed \(run.seed)"),
            ("step", "\(manifest.step), after \(manifest.samplesSeen) samples"),
            (
                "saved",
                "\(timeText(manifest.savedAt)) by \(manifest.worldSize) rank\(manifest.worldSize == 1 ? "" : "s"), attempt \(manifest.attemptID), "
                    + "disttrain \(run.programVersion)"
            ),
            ("metric", manifest.metric.map { "\($0.name) \(metricText($0.value))" } ?? "none"),
            ("model", "\(parameters) parameters in \(manifest.parameters.entries.count) tensors"),
            ("dataset", run.datasetFingerprint.map { "fingerprint \($0)" } ?? "no fingerprint"),
            (
                "first stage",
                run.firstStage.map { "\($0.path), weights \($0.weightsHash ?? "without a hash")" } ?? "none"
            ),
            ("configuration", "hash \(run.configurationHash), --json shows all of it"),
            ("files", "\(manifest.files.count), \(byteText(checkpoint.bytes)); all present in full length"),
        ]
        let folders = manifest.folders.map { folder -> [String] in
            let files = checkpoint.manifest.files.filter { $0.folder == folder }
            return ["  \(folder)", "\(files.count) files", byteText(files.reduce(0) { $0 &+ $1.bytes })]
        }
        return [checkpoint.path.oneLine()] + columns(facts.map { ["  \($0.0)", $0.1.oneLine()] })
            + columns(folders.map { $0.map { $0.oneLine() } })
    }
}

/// `disttrain checkpoint verify`: reads every byte of a checkpoint, or of all checkpoints of a run, and names
/// each damaged file and tensor.
package struct CheckpointAudit {
    let path: String
    let checkpoints: [String]

    package init(of path: String) throws(CheckpointError) {
        self.path = path
        checkpoints = try CheckpointFolder.checkpoints(at: path).reversed()
    }

    /// - Parameter report: called with one line at a time.
    /// - Throws: if a checkpoint is damaged, after all have been read.
    package func run(_ report: (String) -> Void) throws(CheckpointError) {
        var damaged = 0
        for path in checkpoints {
            let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
            let (faults, size) = faults(of: path)
            guard !faults.isEmpty else {
                report("\(name): intact, \(size)".oneLine())
                continue
            }
            damaged += 1
            for fault in faults { report("\(name): \(fault)".oneLine()) }
        }
        guard damaged > 0 else { return }
        throw CheckpointError(
            .damaged, path,
            checkpoints.count == 1
                ? "is damaged" : "\(damaged) of \(checkpoints.count) checkpoints are damaged")
    }

    private func faults(of path: String) -> (faults: [String], size: String) {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint(manifestOf: path)
            let size = "\(checkpoint.manifest.files.count) files, \(byteText(checkpoint.bytes))"
            return (checkpoint.damage().map(checkpoint.relativeMessage), size)
        } catch {
            return (["\((error.path as NSString).lastPathComponent): \(error.detail)"], "")
        }
    }
}

/// `disttrain checkpoint prune`: deletes the checkpoints of a run that the retention rule does not keep. The
/// run must not be training: it may be reading a checkpoint, and prunes its own.
package struct CheckpointPruning {
    package let folder: CheckpointFolder
    let retention: Retention

    /// - Parameter path: a run folder, or its checkpoint folder.
    package init(run path: String, _ retention: Retention) throws(CheckpointError) {
        folder = try CheckpointFolder.named(path)
        self.retention = retention
    }

    /// The steps that `run` would delete, and the number of checkpoints.
    package func preview() throws(CheckpointError) -> (expired: [Int], count: Int) {
        (try folder.expired(retention), try folder.steps().count)
    }

    /// Deletes the expired checkpoints, oldest first.
    ///
    /// - Parameter note: called with one line that explains a long wait, or that names a checkpoint that is
    ///   kept because it cannot be read or deleted.
    /// - Returns: the steps deleted, and the number of checkpoints before.
    /// - Throws: `RunLockError`, which names the process that uses the run, before anything is deleted;
    ///   `CheckpointError` if the folder cannot be listed.
    package func run(
        timing: RunLock.Timing = RunLock.Timing(), note: (String) -> Void
    ) throws -> (expired: [Int], count: Int) {
        try RunLock.holding(folder.run, timing: timing, note: note) {
            let count = try folder.steps().count
            return (try folder.prune(retention) { note("stays: \($0.message)") }, count)
        }
    }
}

// Number formats of the checkpoint tools.

/// A size in decimal units, such as "812 bytes" or "1.12 GB".
func byteText(_ bytes: Int) -> String {
    var (value, units) = (Double(bytes), ["kB", "MB", "GB", "TB", "PB"][...])
    if bytes < 1000 { return "\(bytes) bytes" }
    value /= 1000
    while value >= 999.5, units.count > 1 {
        value /= 1000
        units = units.dropFirst()
    }
    return String(format: value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value)
        + " \(units.first ?? "")"
}

/// A time in the local time zone, such as "2025-11-25 10:31".
func timeText(_ secondsSince1970: Double) -> String {
    // Reject values beyond the range of plausible dates.
    guard abs(secondsSince1970) < 1e11 else { return "unknown" }
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.dateFormat = "yyyy-MM-dd HH:mm"
    return formatter.string(from: Date(timeIntervalSince1970: secondsSince1970))
}

func metricText(_ value: Double) -> String { String(format: "%.5g", value) }

/// Rows as lines with aligned columns; all columns are left-aligned.
package func columns(_ rows: [[String]]) -> [String] {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
        let cells = row.enumerated().map { column, cell in
            column == row.count - 1
                ? cell : cell.padding(toLength: widths[column], withPad: " ", startingAt: 0)
        }
        return cells.joined(separator: "  ")
    }
}
