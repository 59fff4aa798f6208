import Foundation
import Imaging

// The cost of the runs, and their results at equal cost.

extension ReportContents {
    var cost: ReportSection {
        let title = say("Cost", "計算量")
        let rows = runs.flatMap { run -> [[String]] in
            guard let last = run.lastStep, let own = run.cost(upTo: last) else { return [] }
            let stage = run.firstStageCost
            return [costRow(run.label, own)]
                + (stage.map {
                    [
                        costRow(say("its first stage", "その第一段階"), $0),
                        costRow(say("total", "合計"), own + $0),
                    ]
                } ?? [])
        }
        guard !rows.isEmpty else {
            return ReportSection(id: "cost", title: title, blocks: [.missing(noSteps)])
        }
        let table = ReportTable(
            head: [
                "", say("images", "画像数"), say("10¹⁵ operations", "演算数 (10¹⁵)"),
                say("total step time", "ステップの時間"),
            ], rows: rows, numeric: [1, 2, 3],
            caption: say(
                "Floating-point operations of the forward and backward passes, counted for the direct algorithm; a "
                    + "multiply-add counts as two. The time includes training steps only.",
                "演算数は順伝播と逆伝播の直接計算によるもので、積和を 2 と数えます。時間はステップのみの合計です。"))
        return ReportSection(id: "cost", title: title, blocks: [.table(table)])
    }

    private func costRow(_ name: String, _ cost: ReportedCost) -> [String] {
        [
            name, say.whole(Int(cost.images)), cost.operations.map { say.number($0 / 1e15) } ?? "–",
            say.span(cost.seconds),
        ]
    }

    /// A chart for each distance with enough measurements for a curve: over steps for a single run, over
    /// operations and over time for a comparison.
    var distanceCharts: [ReportBlock] {
        let charts = ReportedEvaluation.distances.flatMap { name -> [ReportChart] in
            guard isComparison else {
                return [distanceChart(name) { _, step in Double(step) }].compactMap { $0 }
            }
            return [
                distanceChart(
                    name, over: say("10¹⁵ operations", "演算数 (10¹⁵)"), plain: "1e15 operations",
                    file: "operations"
                ) {
                    $0.wholeCost(upTo: $1)?.operations.map { $0 / 1e15 }
                },
                distanceChart(
                    name, over: say("total step time (min)", "ステップの時間 (分)"), plain: "minutes", file: "minutes"
                ) {
                    $0.wholeCost(upTo: $1).map { $0.seconds / 60 }
                },
            ].compactMap { $0 }
        }
        return charts.isEmpty ? [] : [.charts(charts)]
    }

    private func distanceChart(
        _ name: String, over xName: String? = nil, plain: String = "step", file: String? = nil,
        _ place: (ReportedRun, Int) -> Double?
    ) -> ReportChart? {
        let series = runs.compactMap { run -> LinePlot.Series? in
            let points = run.evaluations.compactMap { evaluation -> (x: Double, y: Double)? in
                guard let x = place(run, evaluation.step),
                    let y = evaluation.metrics.first(where: { $0.name == name })?.value
                else { return nil }
                return (x, y)
            }
            return points.count > 1 ? LinePlot.Series(run.label, points: points) : nil
        }
        guard !series.isEmpty else { return nil }
        let title = ReportedEvaluation.title(of: name, say)
        let english = ReportedEvaluation.title(of: name, .english).replacingOccurrences(of: " ↓", with: "")
        return ReportChart(
            name: [name, file].compactMap { $0 }.joined(separator: "_"), title: title, plainTitle: english,
            xName: xName, plainXName: plain, yLabel: name, series: series, startsAtZero: true)
    }
}
