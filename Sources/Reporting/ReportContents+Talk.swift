import Foundation

// Text for the slides other than tables and curves. Every sentence is derived from the runs' files; what
// requires human judgement is left to the speaker notes.

extension ReportContents {
    /// The purpose of the run.
    var goal: [String] {
        var items = distinct(runs) { run in
            let data = dataset(run) ?? say("its training data", "学習データ")
            guard run.autoencoder == nil else {
                return say(
                    "Train an autoencoder on \(data) that reconstructs images from compact latents.",
                    "\(data)の画像を小さな潜在表現から復元するオートエンコーダを学習します。")
            }
            return say(
                "Train a diffusion model on \(data) that generates new, similar images.",
                "拡散モデルにより、\(data)に似た新しい画像の生成を学習します。")
        }
        let differing = differingSettings.filter { $0.key != "seed" }
        if isComparison {
            items.append(
                differing.isEmpty
                    ? say(
                        "Determine how closely \(runs.count) runs with the same settings agree.",
                        "同じ設定の \(runs.count) 件の実行がどこまで一致するかを確かめます。")
                    : say(
                        "Compare \(runs.count) runs that differ in ", "次の設定が異なる \(runs.count) 件の実行を比べます: ")
                        + differing.prefix(6).map { "`\($0.key)`" }.joined(separator: ", ")
                        + (differing.count > 6 ? " …" : "") + say(".", "。"))
        } else if let steps = runs[0].plannedSteps, let batch = runs[0].train?.batchSize {
            items.append(
                say(
                    "Plan: \(say.whole(steps)) steps of \(say.whole(batch)) images, \(say.whole(steps * batch)) in total.",
                    "計画: \(say.whole(batch)) 枚 × \(say.whole(steps)) ステップ、延べ \(say.whole(steps * batch)) 枚。"))
        }
        return items
    }

    /// How the model is trained and sampled.
    var method: [String] {
        var items: [String] = []
        items += distinct(runs) { run in
            guard let c = run.configuration else { return nil }
            guard let path = c.firstStagePath else {
                return say(
                    "Pixel space: the U-Net denoises the images directly.", "画素空間: U-Net が画像そのもののノイズを除去します。")
            }
            return say(
                "Latent diffusion: a first stage (`\(path)`) encodes images; the U-Net denoises its latents.",
                "潜在拡散モデル: 第一段 (`\(path)`) が画像を符号化し、U-Net が潜在表現のノイズを除去します。")
        }
        items += distinct(runs) { run in
            guard let c = run.configuration else { return nil }
            let d = c.diffusion
            return say(
                "Forward process: x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε, T = \(say.whole(d.timesteps)), schedule "
                    + "`\(d.schedule.rawValue)`.",
                "前向き過程: x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε、T = \(say.whole(d.timesteps))、スケジュール "
                    + "`\(d.schedule.rawValue)`。")
        }
        items += distinct(runs) { run in
            guard let d = run.configuration?.diffusion else { return nil }
            let target =
                switch d.prediction {
                case .epsilon: "ε"
                case .velocity: "v = √ᾱ_t ε − √(1−ᾱ_t) x₀"
                case .sample: "x₀"
                }
            let weight =
                d.minSNRGamma.map {
                    say(", weighted by min-SNR-γ with γ = \($0)", " (min-SNR-γ 重み、γ = \($0))")
                } ?? ""
            return say(
                "The U-Net predicts \(target); the loss is the mean squared error\(weight).",
                "U-Net は \(target) を予測し、損失は平均二乗誤差\(weight)です。")
        }
        items += distinct(runs) { run in
            guard let c = run.configuration else { return nil }
            let average = c.ema.profiles.max().map { profile in
                switch profile {
                case .exponential(let decay): "EMA \(decay)"
                case .power(let sigmaRel): "EMA, σ_rel \(sigmaRel)"
                }
            }
            let weights =
                average.map { say("averaged weights (\($0))", "平均した重み (\($0))") }
                ?? say("the trained weights", "学習した重み")
            return say("Sampling: \(sampler(c)), with \(weights).", "標本生成: \(sampler(c))、\(weights)を使用。")
        }
        if items.isEmpty, runs.contains(where: { $0.autoencoder != nil }) {
            items.append(
                say(
                    "The encoder and decoder are trained to reconstruct their input; a KL term keeps the latents near N(0, I).",
                    "入力を復元するようにエンコーダとデコーダを学習し、KL 項で潜在表現を N(0, I) に近づけます。"))
        }
        items.append(
            say(
                "Data-parallel training on MPI ranks: one global batch, summed gradients, sharded optimizer state.",
                "MPI によるデータ並列: 全体で 1 つのバッチ、勾配の総和、最適化状態の分散保持。"))
        return items
    }

    /// Observations on the numbers; those that apply to all runs come first.
    var discussion: [String] {
        var items: [String] = []
        if isComparison, differsInLoss {
            items.append(
                say(
                    "The runs' losses are not comparable: targets, weightings, schedules or data differ.",
                    "予測対象や重み付けが異なるため、実行間で損失の値は比べられません。"))
        }
        if runs.contains(where: { $0.autoencoder == nil }), runs.allSatisfy(\.evaluations.isEmpty) {
            items.append(
                say(
                    "Sample quality has not been measured yet; the loss alone does not indicate it.",
                    "標本の品質はまだ測定していません。損失だけでは品質は分かりません。"))
        }
        for run in runs {
            let statements = [lossStatement(run), distanceStatement(run)].compactMap { $0 }
            if isComparison {
                if !statements.isEmpty {
                    items.append("\(run.label): \(statements.joined(separator: say(" ", "")))")
                }
            } else {
                items += statements + [timeStatement(run)].compactMap { $0 }
            }
        }
        return items
    }

    private func lossStatement(_ run: ReportedRun) -> String? {
        guard let first = run.steps.first(where: \.loss.isFinite), let start = first.loss.finite,
            let end = finalLoss(run), run.steps.count > 1
        else { return nil }
        return say(
            "The loss went from \(say.number(start)) (step \(say.whole(first.step))) to \(say.number(end)); ",
            "損失は \(say.number(start)) (ステップ \(say.whole(first.step))) から \(say.number(end)) になりました。")
            + trendWords(run)
    }

    private func distanceStatement(_ run: ReportedRun) -> String? {
        guard let distance = run.evaluations.last(where: { $0.distance != nil })?.distance else { return nil }
        let name = ReportedEvaluation.title(of: distance.name, say).replacingOccurrences(of: " ↓", with: "")
        return say("\(name) is \(say.number(distance.value)).", "\(name) は \(say.number(distance.value)) です。")
    }

    private func timeStatement(_ run: ReportedRun) -> String? {
        let parts = shares(run)
        guard let compute = parts.first(where: { $0.color == 0 }) else { return nil }
        // A single rank has no communication.
        let communication = parts.first { $0.color == 1 }.map { say.percent($0.share) }
        return say(
            "\(say.percent(compute.share)) of the time is computation"
                + (communication.map { ", \($0) communication" } ?? "") + ".",
            "時間の \(say.percent(compute.share)) が計算" + (communication.map { "、\($0) が通信" } ?? "") + "です。")
    }

    private enum Trend {
        case unknown
        /// The difference is not statistically significant.
        case level
        /// The relative decrease; `rising` likewise has the relative increase.
        case falling(Double)
        case rising(Double)
    }

    /// Compares the mean loss of the last fifth of the records with that of the fifth before. A difference
    /// counts if it exceeds two standard errors.
    private func trend(_ run: ReportedRun) -> Trend {
        let losses = run.steps.map(\.loss).filter(\.isFinite)
        let fifth = losses.count / 5
        guard fifth >= 5 else { return .unknown }
        func moments(_ part: ArraySlice<Double>) -> (mean: Double, error: Double) {
            let mean = part.reduce(0, +) / Double(part.count)
            let squares = part.map { ($0 - mean) * ($0 - mean) }.reduce(0, +)
            return (mean, squares / Double(part.count * (part.count - 1)))
        }
        let (before, after) = (moments(losses.dropLast(fifth).suffix(fifth)), moments(losses.suffix(fifth)))
        guard before.mean > 0 else { return .unknown }
        let change = (after.mean - before.mean) / before.mean
        guard abs(after.mean - before.mean) > 2 * (before.error + after.error).squareRoot() else {
            return .level
        }
        return change < 0 ? .falling(-change) : .rising(change)
    }

    private func trendWords(_ run: ReportedRun) -> String {
        switch trend(run) {
        case .unknown: return say("too few steps were logged to determine a trend.", "傾向を見るには記録が足りません。")
        case .level:
            return say(
                "it did not change significantly over the last fifth of the logged steps.",
                "最後の 2 割では、ばらつきを超える変化は見られません。")
        case .falling(let part):
            return say(
                "it still decreased by \(say.percent(part)) over the last fifth of the logged steps.",
                "最後の 2 割でもなお \(say.percent(part)) 下がっています。")
        case .rising(let part):
            return say(
                "it increased by \(say.percent(part)) over the last fifth of the logged steps.",
                "最後の 2 割では \(say.percent(part)) 上がっています。")
        }
    }

    /// Measurements and files that the runs still lack.
    var nextSteps: [String] {
        var items: [String] = []
        for run in runs {
            switch run.state(now: now) {
            case .stopped, .interrupted:
                items.append(
                    say(
                        "Resume \(run.label): the same training command continues from step "
                            + "\(run.checkpoints.last.map { say.whole($0) } ?? "0").",
                        "\(run.label) を続けます: 同じ学習コマンドでステップ "
                            + "\(run.checkpoints.last.map { say.whole($0) } ?? "0") から再開できます。"))
            case .finished:
                if case .falling = trend(run) {
                    items.append(
                        say(
                            "Consider training \(run.label) longer: its loss was still decreasing at the end.",
                            "\(run.label) の学習を延ばすことを検討します。終了時にも損失は下がり続けていました。"))
                }
            case .running, .notStarted: break
            }
        }
        let unmeasured = runs.filter { $0.evaluations.isEmpty && $0.hasWeights }
        if let first = unmeasured.first {
            items.append(
                say(
                    "Measure the samples: `disttrain evaluate --model \(first.folder.path) --reference DATASET`",
                    "標本を評価します: `disttrain evaluate --model \(first.folder.path) --reference DATASET`")
                    + (unmeasured.count > 1
                        ? say(", and the other runs.", "、ほかの実行も同様に。") : say(".", "。")))
        }
        if items.isEmpty {
            items.append(
                say("The records show nothing that is missing.", "実行の記録からは、不足しているものは見当たりません。"))
        }
        return items
    }

    /// The texts of the runs, without duplicates.
    private func distinct(_ runs: [ReportedRun], _ text: (ReportedRun) -> String?) -> [String] {
        var seen: Set<String> = []
        return runs.compactMap(text).filter { seen.insert($0).inserted }
    }
}
