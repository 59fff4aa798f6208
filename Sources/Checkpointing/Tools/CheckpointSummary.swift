import Foundation
import Support

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
                run.firstStage.map { "\($0.path), weights \($0.weightsHash ?? "of no hash")" } ?? "none"
            ),
            ("configuration", "hash \(run.configurationHash), whole in --json"),
            ("files", "\(manifest.files.count), \(byteText(checkpoint.bytes)); all there in full length"),
        ]
        let folders = manifest.folders.map { folder -> [String] in
            let files = checkpoint.manifest.files.filter { $0.folder == folder }
            return ["  \(folder)", "\(files.count) files", byteText(files.reduce(0) { $0 &+ $1.bytes })]
        }
        return [checkpoint.path.oneLine()] + columns(facts.map { ["  \($0.0)", $0.1.oneLine()] })
            + columns(folders.map { $0.map { $0.oneLine() } })
    }
}
