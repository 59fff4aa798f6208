import Communication
import Foundation
import Imaging

/// All contents of a report on one or more runs, as blocks from which pages and slides select.
///
/// The text draws no conclusions beyond the runs' files: each sentence states a number or what is missing.
struct ReportContents {
    let runs: [ReportedRun]
    let say: ReportLanguage
    /// Current time in seconds since 1970.
    let now: Double

    var isComparison: Bool { runs.count > 1 }

    /// The complete report. Every section is present, whether it has data or not.
    func document() -> ReportDocument {
        ReportDocument(
            language: say, title: title, kind: say("Training report", "学習レポート"), summary: summary,
            keyFigures: keyFigures,
            sections: [
                environment, model, settings, loss, curves, throughput, cost, time, samples, denoising,
                evaluation,
                restarts,
            ], colophon: colophon)
    }

    var title: String {
        isComparison
            ? say("\(runs.count) runs compared", "\(runs.count) 件の実行の比較") : runs[0].label
    }

    var colophon: String {
        say(
            "Made by disttrain \(Program.version) on \(say.time(now)) from ",
            "disttrain \(Program.version) が \(say.time(now)) に作成。対象: ")
            + runs.map { "`\($0.folder.path)`" }.joined(separator: ", ")
    }

    // MARK: Facts and tables over runs

    /// A property of a run: its name and a closure that returns its value.
    typealias Property = (name: String, value: (ReportedRun) -> String?)

    /// Properties with the same value in all runs as a list of facts, and a table with one column per run for
    /// those that differ. Properties that no run has are left out.
    func properties(_ properties: [Property], else missing: String) -> [ReportBlock] {
        let rows = properties.map { property in (name: property.name, values: runs.map(property.value)) }
            .filter { $0.values.contains { $0 != nil } }
        guard !rows.isEmpty else { return [.missing(missing)] }
        let common = rows.filter { Set($0.values).count == 1 }
        let differing = rows.filter { Set($0.values).count > 1 }
        var blocks: [ReportBlock] = []
        if !differing.isEmpty {
            blocks.append(
                .table(
                    ReportTable(
                        head: [""] + runs.map(\.label),
                        rows: differing.map { [$0.name] + $0.values.map { $0 ?? "–" } })))
        }
        if !common.isEmpty {
            blocks.append(.facts(common.map { ($0.name, ($0.values.first ?? nil) ?? "–") }))
        }
        return blocks
    }

    /// One curve for each run that has at least two finite values.
    func series(
        smooth: Bool = false, _ value: (ReportedStep) -> Double?
    ) -> [LinePlot.Series] {
        runs.map { run in LinePlot.Series(run.label, points: run.steps.points(value), smooth: smooth) }
            .filter { $0.points.filter(\.y.isFinite).count > 1 }
    }

    // MARK: Title and summary

    /// The kind of model that is trained, as a phrase.
    func subject(_ run: ReportedRun) -> String {
        let size = Architecture(run).map { say.parameters($0.parameterCount) }
        if run.autoencoder != nil {
            return size.map { say("an autoencoder of \($0) parameters", "\($0) パラメータのオートエンコーダ") }
                ?? say("an autoencoder", "オートエンコーダ")
        }
        guard let configuration = run.configuration else { return say("a model", "モデル") }
        let place =
            configuration.firstStagePath == nil
            ? say("in pixel space", "(画素空間)") : say("on latents", "(潜在空間)")
        let net = size.map { say("a U-Net of \($0) parameters", "\($0) パラメータの U-Net") } ?? "U-Net"
        return "\(net) \(place)"
    }

    /// The training data, as a phrase.
    func dataset(_ run: ReportedRun) -> String? {
        guard let data = run.data else { return nil }
        let size = data.size.map { " \($0)×\($0)" } ?? ""
        return data.isSynthetic
            ? say(
                "\(say.whole(data.syntheticCount)) drawn faces\(size)",
                "\(data.size.map { "\($0)×\($0) の" } ?? "")描画した顔画像 \(say.whole(data.syntheticCount)) 枚")
            : "`\(data.path)`" + (size.isEmpty ? "" : ",\(size)")
    }

    var summary: String {
        if isComparison {
            let ended = runs.filter { $0.state(now: now) == .finished }.count
            let best = runs.compactMap { run in finalLoss(run).map { (run.label, $0) } }.min { $0.1 < $1.1 }
            var text = say(
                "\(runs.count) runs, \(ended) of them finished: \(say.list(runs.map(\.label))).",
                "\(runs.count) 件の実行 (\(say.list(runs.map(\.label)))) を比べます。うち \(ended) 件が完了しています。")
            if let best, !differsInLoss {
                text += say(
                    " The lowest loss at the end is that of \(best.0), \(say.number(best.1)).",
                    "終了時の損失が最も小さいのは \(best.0) の \(say.number(best.1)) です。")
            } else if best != nil {
                text += say(
                    " They do not minimize the same loss, so its values are not comparable across all of them.",
                    "損失の定義が異なる実行を含むため、その値どうしは直接比べられません。")
            }
            return text
        }
        return summary(of: runs[0])
    }

    /// Whether the runs' losses are not comparable because their targets, loss weights or data differ.
    var differsInLoss: Bool {
        Set(
            runs.map { run -> String in
                guard let c = run.configuration else { return run.autoencoder.map { "\($0.loss)" } ?? "" }
                return "\(c.diffusion.prediction) \(String(describing: c.diffusion.minSNRGamma)) "
                    + "\(c.diffusion.schedule) \(c.diffusion.timesteps) \(c.firstStagePath ?? "") \(c.data.path)"
            }
        ).count > 1
    }

    func finalLoss(_ run: ReportedRun) -> Double? {
        run.lastStep.flatMap { run.steps.mean(upTo: $0, \.loss) }
    }

    private func summary(of run: ReportedRun) -> String {
        var text = ""
        let what = subject(run)
        if let data = dataset(run) {
            text = say(
                "\(run.label) trains \(what) on \(data). ", "\(run.label) は、\(data)で \(what) を学習する実行です。")
        } else {
            text = say("\(run.label) trains \(what). ", "\(run.label) は \(what) を学習する実行です。")
        }
        text += standing(run)
        if let first = run.steps.first?.loss, let last = finalLoss(run), run.steps.count > 1 {
            text += say(
                " The loss went from \(say.number(first)) to \(say.number(last)).",
                "損失は \(say.number(first)) から \(say.number(last)) になりました。")
        }
        if let evaluation = run.evaluations.last(where: { $0.distance != nil }),
            let distance = evaluation.distance
        {
            let name = ReportedEvaluation.title(of: distance.name, say).replacingOccurrences(
                of: " ↓", with: "")
            text += say(
                " \(name) at step \(say.whole(evaluation.step)): \(say.number(distance.value)).",
                "ステップ \(say.whole(evaluation.step)) での \(name) は \(say.number(distance.value)) です。")
        }
        return text
    }

    /// A sentence on the run's progress and state.
    func standing(_ run: ReportedRun) -> String {
        let last = say.whole(run.lastStep ?? run.checkpoints.last ?? 0)
        let planned = run.plannedSteps.map { say.whole($0) } ?? "?"
        let time = say.span(run.trainedSeconds)
        switch run.state(now: now) {
        case .finished:
            return say("It made all \(planned) steps in \(time).", "予定の \(planned) ステップを \(time)で終えました。")
        case .running:
            return say("It is at step \(last) of \(planned).", "現在 \(planned) ステップ中 \(last) ステップ目です。")
        case .stopped:
            return say(
                "It was stopped at step \(last) of \(planned) and can be resumed.",
                "\(planned) ステップ中 \(last) ステップで停止し、再開できます。")
        case .brokenOff:
            return say(
                "It broke off at step \(last) of \(planned).", "\(planned) ステップ中 \(last) ステップで途切れています。")
        case .notStarted:
            return say("No step has been logged yet.", "まだ 1 ステップも記録されていません。")
        }
    }

    func stateName(_ run: ReportedRun) -> String {
        switch run.state(now: now) {
        case .finished: return say("finished", "完了")
        case .running: return say("running", "実行中")
        case .stopped: return say("stopped, can be resumed", "停止 (再開可)")
        case .brokenOff: return say("broken off", "中断")
        case .notStarted: return say("not started", "未開始")
        }
    }

    private var keyFigures: [(value: String, name: String)] {
        guard !isComparison else { return [] }
        let run = runs[0]
        var figures: [(String, String)] = []
        if let last = run.lastStep { figures.append((say.whole(last), say("steps", "ステップ"))) }
        if let loss = finalLoss(run) { figures.append((say.number(loss), say("loss at the end", "終了時の損失"))) }
        if let speed = run.lastStep.flatMap({ run.steps.mean(upTo: $0, \.imagesPerSecond) }) {
            figures.append((say.number(speed), say("images a second", "画像/秒")))
        }
        if run.trainedSeconds > 0 {
            figures.append((say.span(run.trainedSeconds), say("of training", "学習時間")))
        }
        if let distance = run.evaluations.last(where: { $0.distance != nil })?.distance {
            let name = ReportedEvaluation.title(of: distance.name, say).replacingOccurrences(
                of: " ↓", with: "")
            figures.append((say.number(distance.value), name))
        }
        return figures
    }
}
