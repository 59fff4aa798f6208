import Checkpointing
import Foundation
import Imaging

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
