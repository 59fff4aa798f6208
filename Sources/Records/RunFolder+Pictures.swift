import Checkpointing
import Foundation
import Imaging
import Support

extension RunFolder {
    /// Removes pictures that are later than the step the run resumes from, so that none shows a discarded
    /// part of the run. Later samples and evaluations are moved to a folder `superseded` next to them, and
    /// `loss.png` is redrawn. Call it on the rank that holds the lock, after the metrics have been truncated.
    ///
    /// - Parameter step: nil if the run starts from scratch.
    package func cutPicturesBack(to step: Int?) throws {
        try setAside(samples, after: step) { Self.step(ofSamples: $0) }
        try setAside(evaluation, after: step) { Self.step(ofEvaluation: $0) }
        unlink("\(path)/loss.png")
        try LossCurve(self).write()
    }

    /// Moves a folder's files of later steps to its subfolder `superseded`.
    private func setAside(_ folder: String, after step: Int?, _ stepOf: (String) -> Int?) throws {
        guard FileManager.default.fileExists(atPath: folder) else { return }
        let aside = (folder as NSString).appendingPathComponent("superseded")
        for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
            guard let found = stepOf(name), found > step ?? -1 else { continue }
            try FileManager.default.createDirectory(atPath: aside, withIntermediateDirectories: true)
            let (old, new) = ("\(folder)/\(name)", "\(aside)/\(name)")
            if rename(old, new) != 0 {
                throw RunFolderError(
                    path: old, detail: "cannot be moved to \(aside): \(systemReason())", code: errno)
            }
        }
    }

    /// The step in a name such as `step-00001000-inception.json` or `step-00001000-inception-nearest.png`;
    /// nil for any other name.
    private static func step(ofEvaluation name: String) -> Int? {
        guard name.hasPrefix("step-") else { return nil }
        return Int(name.dropFirst(5).prefix { ("0"..."9").contains($0) })
    }

    /// The step in a name such as `samples_00001000.png`; nil for any other name.
    package static func step(ofSamples name: String) -> Int? {
        guard name.hasPrefix("samples_"), name.hasSuffix(".png") else { return nil }
        let digits = name.dropFirst(8).dropLast(4)
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(digits)
    }
}

/// Draws the run's loss over its steps to `loss.png`.
package struct LossCurve {
    package let run: RunFolder
    package init(_ run: RunFolder) { self.run = run }

    package func write() throws {
        guard FileManager.default.fileExists(atPath: run.metrics) else { return }
        let points = try MetricsHistory(contentsOf: run.metrics).series("loss")
        guard points.count > 1 else { return }
        let series = LinePlot.Series(
            "loss", points: points.map { (x: Double($0.step), y: $0.value) }, smooth: true)
        let title = (run.path as NSString).lastPathComponent
        try LinePlot(title: title, xLabel: "step", yLabel: "loss", series: [series], logY: true).render()
            .write(to: "\(run.path)/loss.png")
    }
}

/// Pictures of a model's sampling, stored in the run's `report` folder.
package enum SamplingPictureKind: String, CaseIterable {
    case denoising, interpolation

    package var fileName: String { "\(rawValue).png" }
}
