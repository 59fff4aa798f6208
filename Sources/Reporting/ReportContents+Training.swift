import Records

// Loss, throughput, and the breakdown of time.

extension ReportContents {
    var noSteps: String {
        say(
            "No step has been logged yet; training adds a line to `metrics.jsonl` every `train.log_every` steps.",
            "記録されたステップがありません。学習中、`train.log_every` ステップごとに `metrics.jsonl` へ書き込まれます。")
    }

    var loss: ReportSection {
        ReportSection(
            id: "loss", title: say("Loss at selected steps", "主なステップでの損失"), blocks: [lossTable()])
    }

    func lossTable(rows count: Int = 8) -> ReportBlock {
        guard runs.contains(where: { !$0.steps.isEmpty }) else { return .missing(noSteps) }
        let note = say(
            "Losses and gradient norms are means over the last tenth of the steps up to that step.",
            "損失と勾配ノルムは、そのステップまでの直近 1 割のステップの平均です。")
        guard isComparison else {
            let steps = runs[0].steps
            func mean(_ step: Int, _ value: (StepMetrics) -> Double) -> Double? {
                steps.mean(upTo: step, value)
            }
            return .table(
                .ofNumbers(
                    [
                        say("step", "ステップ"), say("epoch", "エポック"), say("loss", "損失"),
                        say("gradient norm", "勾配ノルム"), say("learning rate", "学習率"),
                    ],
                    steps.milestones(count).map { step in
                        let nearest = steps.last { $0.step <= step }
                        return [
                            say.whole(step), nearest?.epoch.finite.map { String(format: "%.2f", $0) } ?? "–",
                            mean(step, \.loss).map { say.number($0) } ?? "–",
                            mean(step, \.gradientNorm).map { say.number($0) } ?? "–",
                            nearest?.learningRate.finite.map { say.rate($0) } ?? "–",
                        ]
                    }, caption: note))
        }
        let longest = runs.map(\.steps).max { ($0.last?.step ?? 0) < ($1.last?.step ?? 0) } ?? []
        let ends = Set(runs.compactMap(\.lastStep))
        let marks = Set(longest.milestones(count)).union(ends).sorted()
        return .table(
            .ofNumbers(
                [say("step", "ステップ")] + runs.map(\.label),
                marks.map { step in
                    [say.whole(step)]
                        + runs.map { run in
                            guard let last = run.lastStep, step <= last,
                                let loss = run.steps.mean(upTo: step, \.loss)
                            else { return "–" }
                            return say.number(loss)
                        }
                }, caption: note))
    }

    var curves: ReportSection {
        let charts = [lossChart, rateChart, normChart].compactMap { $0 }
        var blocks: [ReportBlock] = charts.isEmpty ? [.missing(noSteps)] : [.charts(charts)]
        if isComparison, differsInLoss, !charts.isEmpty {
            blocks.insert(
                .paragraph(
                    say(
                        "The losses are defined differently (target, weighting, schedule or data differ): compare the "
                            + "shapes of the curves, not their values.",
                        "予測対象・重み付け・スケジュール・データのいずれかが異なり、損失の定義が同じではありません。"
                            + "曲線の高さではなく形を比べてください。")), at: 0)
        }
        return ReportSection(id: "curves", title: say("Curves", "学習曲線"), blocks: blocks)
    }

    var lossChart: ReportChart? {
        chart(
            "loss", say("Loss", "損失"), plain: "Loss", yLabel: "loss", smooth: true, canBeLogarithmic: true,
            \.loss)
    }

    private var rateChart: ReportChart? {
        var chart = chart(
            "learning_rate", say("Learning rate", "学習率"), plain: "Learning rate", yLabel: "lr", \.learningRate
        )
        chart?.startsAtZero = true
        return chart
    }

    private var normChart: ReportChart? {
        chart(
            "gradient_norm", say("Gradient norm before clipping", "勾配ノルム (クリッピング前)"),
            plain: "Gradient norm before clipping", yLabel: "norm", smooth: true, canBeLogarithmic: true,
            \.gradientNorm)
    }

    private func chart(
        _ name: String, _ title: String, plain: String, yLabel: String, smooth: Bool = false,
        canBeLogarithmic: Bool = false, _ value: (StepMetrics) -> Double
    ) -> ReportChart? {
        let curves = series(smooth: smooth, value)
        guard !curves.isEmpty else { return nil }
        // Use a logarithmic axis if the central 96 % of the values span more than a factor of four; a linear
        // axis would flatten the end of the curve.
        let values = curves.flatMap { $0.points.map(\.y) }.filter(\.isFinite).sorted()
        let (low, high) = (values[values.count / 50], values[values.count - 1 - values.count / 50])
        return ReportChart(
            name: name, title: title, plainTitle: plain, yLabel: yLabel, series: curves,
            isLogarithmic: canBeLogarithmic && low > 0 && high > 4 * low)
    }

    var throughput: ReportSection {
        let block: ReportBlock = throughputChart.map { .charts([$0]) } ?? .missing(noSteps)
        return ReportSection(
            id: "throughput", title: say("Throughput", "スループット"),
            blocks: [block] + speeds)
    }

    var throughputChart: ReportChart? {
        guard
            var chart = chart(
                "throughput", say("Images per second", "毎秒の画像数"), plain: "Images per second",
                yLabel: "images/s", smooth: true, \.imagesPerSecond)
        else { return nil }
        // Start the axis at zero, so that small fluctuations look small.
        chart.startsAtZero = true
        return chart
    }

    /// The median of the logged throughput and the range of the central 90 %.
    private var speeds: [ReportBlock] {
        let rows = runs.compactMap { run -> [String]? in
            let speeds = run.steps.map(\.imagesPerSecond).filter(\.isFinite).sorted()
            guard speeds.count > 1 else { return nil }
            let twentieth = speeds.count / 20
            return [
                run.label, say.number(speeds[speeds.count / 2]),
                "\(say.number(speeds[twentieth]))–\(say.number(speeds[speeds.count - 1 - twentieth]))",
            ]
        }
        guard let first = rows.first else { return [] }
        guard isComparison else {
            return [
                .paragraph(
                    say(
                        "Median throughput of the logged intervals: \(first[1]) images/s; the central 90 % are within "
                            + "\(first[2]) images/s.",
                        "記録区間の中央値は毎秒 \(first[1]) 枚、9 割は \(first[2]) 枚の範囲です。"))
            ]
        }
        return [
            .table(
                ReportTable(
                    head: [
                        say("images/s", "毎秒の画像数"), say("median", "中央値"),
                        say("central 90 %", "9 割の範囲"),
                    ], rows: rows, numeric: [1, 2]))
        ]
    }

    var time: ReportSection {
        let bars = runs.map { (name: $0.label, parts: shares($0)) }.filter { !$0.parts.isEmpty }
        guard !bars.isEmpty else {
            return ReportSection(
                id: "time", title: timeTitle,
                blocks: [
                    .missing(
                        say(
                            "The time per kind of work is recorded with each step in `metrics.jsonl`; there is none yet.",
                            "作業ごとの時間は `metrics.jsonl` の各ステップに記録されますが、まだありません。"))
                ])
        }
        return ReportSection(
            id: "time", title: timeTitle,
            blocks: [
                .shares(ReportShares(bars: bars)),
                .paragraph(
                    say(
                        "Data, computation and communication times are those of the slowest rank in each; “update” is the "
                            + "rest of the step; “between steps” includes sampling, checkpoints, logging and startup.",
                        "データ・計算・通信は最も遅いランクの値、「更新」はステップの残り、「ステップ間」は標本生成・"
                            + "チェックポイント・記録・起動の時間です。")),
            ])
    }

    private var timeTitle: String { say("Time breakdown", "時間の内訳") }

    /// The share of each kind of work in the total recorded time.
    func shares(_ run: ReportedRun) -> [ReportShares.Part] {
        var sums: [(kind: String, seconds: Double)] = []
        for part in run.sessions.flatMap(\.work) {
            if let index = sums.firstIndex(where: { $0.kind == part.kind }) {
                sums[index].seconds += part.seconds
            } else {
                sums.append(part)
            }
        }
        let total = sums.map(\.seconds).reduce(0, +)
        guard total > 0 else { return [] }
        let order = ["compute", "communication", "data", "update", "optimizer", "save", "between"]
        // Omit kinds that would be shown as 0.0 %.
        return sums.filter { $0.seconds >= 0.0005 * total }.map { part in
            let place = order.firstIndex(of: part.kind) ?? order.count
            return ReportShares.Part(name: kindName(part.kind), share: part.seconds / total, color: place)
        }.sorted { $0.color < $1.color }
    }

    private func kindName(_ kind: String) -> String {
        switch kind {
        case "compute": return say("compute", "計算")
        case "communication": return say("communication", "通信")
        case "data": return say("data", "データ")
        case "update": return say("update and rest", "更新など")
        case "optimizer": return say("optimizer", "最適化")
        case "save": return say("saving", "保存")
        case "between": return say("between steps", "ステップ間")
        default: return kind
        }
    }
}
