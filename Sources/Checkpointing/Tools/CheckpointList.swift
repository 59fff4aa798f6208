import Foundation

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
                problems.first.map { "damaged: \(checkpoint.told($0))\(more)" } ?? "whole",
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
                "being written or deleted, or left by a run that died; cleared when the run goes on"
            ),
            ("superseded-", "of a past that the run went back behind; delete it if you do not want it"),
        ].flatMap { prefix, what in
            names.filter { $0.hasPrefix(prefix) }.map { "\($0.oneLine()): \(what)" }
        }
    }
}

extension Checkpoint {
    /// Total size in bytes of all files in the manifest.
    var bytes: Int { manifest.files.reduce(0) { $0 &+ $1.bytes } }
}
