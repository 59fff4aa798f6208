import Foundation

/// `disttrain checkpoint diff`: compares two checkpoints.
package struct CheckpointComparison {
    let a: Checkpoint
    let b: Checkpoint
    /// Maximum number of tensors listed per folder.
    let listed: Int

    /// - Parameters:
    ///   - first, second: checkpoints, or runs, whose newest checkpoint is used.
    ///   - listed: how many of the most different tensors of each folder are listed.
    package init(_ first: String, _ second: String, listed: Int = 5) throws(CheckpointError) {
        a = try Checkpoint.newest(at: first)
        b = try Checkpoint.newest(at: second)
        self.listed = listed
    }

    /// - Parameter report: called with one line at a time; the lines of a folder follow when it has been
    ///   read.
    /// - Throws: if a checkpoint is damaged.
    package func run(_ report: (String) -> Void) throws(CheckpointError) {
        for line in ["A  \(a.path)", "B  \(b.path)"] { report(line.oneLine()) }
        for line in facts() + configuration() { report(line.oneLine()) }
        for folder in a.manifest.folders {
            guard b.manifest.folders.contains(folder) else {
                report("\(folder): only in A")
                continue
            }
            for line in lines(try FolderDifference(folder, a, b)) { report(line.oneLine()) }
        }
        for folder in b.manifest.folders where !a.manifest.folders.contains(folder) {
            report("\(folder): only in B")
        }
    }

    /// The differences of the manifests other than configuration and tensors.
    private func facts() -> [String] {
        func facts(_ manifest: CheckpointManifest) -> [(String, String)] {
            [
                ("run", manifest.run.name), ("seed", String(manifest.run.seed)),
                ("step", String(manifest.step)),
                ("samples", String(manifest.samplesSeen)), ("ranks", String(manifest.worldSize)),
                ("metric", manifest.metric.map { "\($0.name) \(metricText($0.value))" } ?? "none"),
                ("dataset fingerprint", manifest.run.datasetFingerprint ?? "none"),
                ("first stage's weights", manifest.run.firstStage?.weightsHash ?? "none"),
                ("model's config.json", manifest.run.modelConfig),
                ("scheduler's configuration", manifest.run.schedulerConfig ?? "none"),
                ("program version", manifest.run.programVersion),
            ]
        }
        return zip(facts(a.manifest), facts(b.manifest)).filter { $0.1 != $1.1 }.map { first, second in
            // Values of several lines are contents of files, which are not shown. The configuration is
            // compared key by key instead.
            first.1.contains("\n") || second.1.contains("\n")
                ? "\(first.0): differs" : "\(first.0): \(first.1) → \(second.1)"
        }
    }

    private func configuration() -> [String] {
        let texts = (a.manifest.run.configuration, b.manifest.run.configuration)
        if texts.0 == texts.1 { return ["configuration: the same"] }
        do {
            let differences = try ConfigurationDifference.all(from: texts.0, to: texts.1)
            return ["configuration: \(differences.count) keys differ"]
                + differences.map { "  \($0.key): \($0.old ?? "absent") → \($0.new ?? "absent")" }
        } catch {
            return ["configuration: differs; \(error)"]
        }
    }

    private func lines(_ difference: FolderDifference) -> [String] {
        let changed = difference.tensors.filter { $0.differing > 0 }
        let same = difference.tensors.count - changed.count
        var title =
            "\(difference.folder): \(same) of \(difference.tensors.count) tensors are bit-identical"
        if !changed.isEmpty {
            title += "; " + measures(difference.largest, difference.relative).joined(separator: ", ")
        }
        var lines = [title]
        lines += difference.unlike.map { "  \($0)" }
        // Tensors with equal differences keep the model's order.
        let most = changed.enumerated().sorted {
            ($1.element.relative, $0.offset) < ($0.element.relative, $1.offset)
        }
        let rows = most.prefix(listed).map(\.element).map { tensor in
            ["  \(tensor.name)", "\(tensor.shape)"] + measures(tensor.largest, tensor.relative)
        }
        lines += columns(rows)
        if changed.count > rows.count { lines.append("  and \(changed.count - rows.count) that differ less") }
        return lines
    }

    private func measures(_ largest: Double, _ relative: Double) -> [String] {
        ["largest \(String(format: "%.2e", largest))", "relative \(String(format: "%.2e", relative))"]
    }
}
