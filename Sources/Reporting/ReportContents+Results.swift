import Foundation
import Imaging
import Records
import Support

// Samples, illustrations of sampling, and evaluation.

extension ReportContents {
    var samples: ReportSection {
        let blocks = runs.flatMap { run -> [ReportBlock] in
            let found = sampleGrids(run, most: isComparison ? 3 : 6)
            return found.isEmpty ? [] : (isComparison ? [.heading(run.label)] : []) + [.pictures(found)]
        }
        let missing = ReportBlock.missing(
            say(
                "No samples yet; training writes a grid to `samples/` every `train.sample_every` steps.",
                "まだ標本がありません。学習中、`train.sample_every` ステップごとに `samples/` へ書き込まれます。"))
        return ReportSection(
            id: "samples", title: say("Samples by step", "ステップごとの標本"),
            blocks: blocks.isEmpty
                ? [missing]
                : blocks + sampleNotes)
    }

    /// Explanations of the sample grids.
    private var sampleNotes: [ReportBlock] {
        var notes: [String] = []
        if runs.contains(where: { $0.autoencoder == nil }) {
            notes.append(
                say(
                    "All grids start from the same noise: each position shows the same sample at different steps.",
                    "どの格子も同じノイズから生成しているため、同じ位置は同じ標本の変化を示します。"))
        }
        if runs.contains(where: { $0.autoencoder != nil }) {
            notes.append(
                say(
                    "The grids of an autoencoder show images, each with its reconstruction on the right.",
                    "オートエンコーダの格子は、画像とその右に復元結果を並べたものです。"))
        }
        return notes.map { .paragraph($0) }
    }

    /// At most `most` sample grids from the whole training, including the last.
    func sampleGrids(_ run: ReportedRun, most: Int) -> [ReportPicture] {
        let all = run.samples
        guard let last = all.last else { return [] }
        // Samples change most at the beginning, so steps are selected by farthest-point sampling on a
        // logarithmic axis, starting with the first and the last.
        let unit = Double(all.first { $0.step > 0 }?.step ?? 1)
        func place(_ sample: (step: Int, path: String)) -> Double { log(Double(sample.step) + unit) }
        var chosen = all.count > 1 ? [all[0], last] : [last]
        while chosen.count < min(most, all.count) {
            func distance(_ sample: (step: Int, path: String)) -> Double {
                chosen.map { abs(place($0) - place(sample)) }.min() ?? 0
            }
            guard let next = all.max(by: { distance($0) < distance($1) }) else { break }
            chosen.append(next)
        }
        chosen.sort { $0.step < $1.step }
        return chosen.compactMap { sample in
            guard let image = try? Image.read(sample.path) else { return nil }
            return ReportPicture(
                name: "\(fileName(run))_samples_\(sample.step)", image: image.shrunk(toWidth: 640),
                caption: say("step \(say.whole(sample.step))", "ステップ \(say.whole(sample.step))"))
        }
    }

    /// A run's label with the characters that are unsafe in file names replaced.
    func fileName(_ run: ReportedRun) -> String {
        String(run.label.map { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) ? $0 : "_" })
    }

    var denoising: ReportSection {
        let blocks = runs.flatMap { run -> [ReportBlock] in
            let found = SamplingPictureKind.allCases.compactMap { picture($0, of: run) }
            return found.isEmpty ? [] : (isComparison ? [.heading(run.label)] : []) + [.pictures(found)]
        }
        let command =
            runs.first { $0.hasWeights }.map { " `disttrain report \($0.folder.path) --pictures`" } ?? ""
        return ReportSection(
            id: "denoising", title: say("Denoising and interpolation", "ノイズ除去と補間"),
            blocks: blocks.isEmpty
                ? [
                    .missing(
                        command.isEmpty
                            ? say(
                                "Pictures of the sampling process require a checkpoint or a finished model; there is none yet.",
                                "生成過程の図にはチェックポイントか完成したモデルが必要ですが、まだありません。")
                            : say(
                                "Generate pictures of the sampling process with\(command) (seconds for a small model).",
                                "生成過程の図は\(command) で作成できます (小さなモデルなら数秒)。"))
                ] : blocks)
    }

    private func picture(_ kind: SamplingPictureKind, of run: ReportedRun) -> ReportPicture? {
        let path = "\(run.pictureFolder)/\(kind.fileName)"
        guard let bytes = try? readWholeFile(path, limit: 256 << 20),
            let image = try? Image.decode(bytes, name: path)
        else { return nil }
        let step = Image.pngText(bytes).first { $0.key == "step" }.flatMap { Int($0.value) }
        let place = step.map { say(" (step \(say.whole($0)))", " (ステップ \(say.whole($0)))") } ?? ""
        return ReportPicture(
            name: "\(fileName(run))_\(kind.rawValue)", image: image.shrunk(toWidth: 1280),
            caption: kind.caption(say) + place, isWide: true)
    }

    var evaluation: ReportSection {
        let blocks = evaluationTables
        let example = runs.first { $0.hasWeights }?.folder.path ?? "RUN"
        let isAutoencoder = runs.allSatisfy { $0.autoencoder != nil }
        let missing = ReportBlock.missing(
            isAutoencoder
                ? say(
                    "`disttrain evaluate` measures generated samples; an autoencoder alone does not generate any.",
                    "`disttrain evaluate` は生成した標本を測定しますが、オートエンコーダ単体は標本を生成しません。")
                : say(
                    "No evaluation yet. Run `disttrain evaluate --model \(example) --reference DATASET`.",
                    "評価はまだありません。`disttrain evaluate --model \(example) --reference DATASET` で測定できます。"))
        return ReportSection(
            id: "evaluation", title: say("Evaluation", "評価"),
            blocks: blocks.isEmpty ? [missing] : blocks + classTables + distanceCharts + evaluationPictures)
    }

    /// One table per kind of features: the last six evaluations of a single run, or the last evaluation of
    /// each of several runs.
    private var evaluationTables: [ReportBlock] {
        var kinds: [String?] = []
        for evaluation in runs.flatMap(\.evaluations) where !kinds.contains(evaluation.features) {
            kinds.append(evaluation.features)
        }
        return kinds.map { kind in
            guard isComparison else {
                return evaluationTable(
                    runs[0].evaluations.filter { $0.features == kind }.suffix(6).map { (nil, $0) })
            }
            return evaluationTable(
                runs.compactMap { run in
                    run.evaluations.last { $0.features == kind }.map { (run.label, $0) }
                })
        }
    }

    /// A table with one column per evaluation, since there are more metrics than evaluations.
    private func evaluationTable(_ columns: [(run: String?, evaluation: ReportedEvaluation)]) -> ReportBlock {
        let shown = columns.map(\.evaluation)
        // Confidence bounds are shown after their value, not in rows of their own.
        let isBound = { (name: String) in name.hasSuffix("_low") || name.hasSuffix("_high") }
        var names: [String] = []
        for metric in shown.flatMap(\.metrics) where !isBound(metric.name) && !names.contains(metric.name) {
            names.append(metric.name)
        }
        /// A row with the text for each evaluation, or a dash.
        func row(_ title: String, _ text: (_ value: (String) -> Double?) -> String?) -> [String] {
            [title]
                + shown.map { evaluation in
                    text { name in evaluation.metrics.first { $0.name == name }?.value } ?? "–"
                }
        }
        let rows = names.flatMap { name -> [[String]] in
            let title = ReportedEvaluation.title(of: name, say)
            let bounds = row(say("95 % interval", "その区間")) { value in
                guard let low = value("\(name)_low"), let high = value("\(name)_high") else { return nil }
                return say(
                    "\(say.number(low)) to \(say.number(high))", "\(say.number(low)) 〜 \(say.number(high))")
            }
            return [row(title) { $0(name).map { say.number($0) } }]
                + (bounds.dropFirst().contains { $0 != "–" } ? [bounds] : [])
        }
        let steps = [say("step", "ステップ")] + shown.map { say.whole($0.step) }
        let labels = columns.compactMap(\.run)
        let about = [
            [say("weights", "重み")] + shown.map { $0.weights ?? "–" },
            [say("samples", "標本数")] + shown.map { $0.count.map { say.whole($0) } ?? "–" },
        ]
        return .table(
            ReportTable(
                head: labels.isEmpty ? steps : [""] + labels,
                rows: (labels.isEmpty ? [] : [steps]) + about + rows, numeric: Set(1...shown.count),
                caption: labels.isEmpty ? conditions(shown.last) : conditions(columns)))
    }

    /// The newest evaluation by class of each run: the 20 classes with the largest distances.
    private var classTables: [ReportBlock] {
        runs.compactMap { run in
            guard let evaluation = run.evaluations.last(where: { !$0.classes.isEmpty }),
                let metric = evaluation.classes[0].metrics.first?.name
            else { return nil }
            func value(_ index: Int) -> Double { evaluation.classes[index].metrics.first?.value ?? .nan }
            let order = evaluation.classes.indices.sorted { value($0) > value($1) }
            let label = isComparison ? "\(run.label), " : ""
            return .table(
                ReportTable(
                    head: [
                        say("class", "クラス"), say("samples", "標本数"), ReportedEvaluation.title(of: metric, say),
                    ],
                    rows: order.prefix(20).map { index in
                        let result = evaluation.classes[index]
                        return [
                            result.name, result.count.map { say.whole($0) } ?? "–", say.number(value(index)),
                        ]
                    }, numeric: [1, 2],
                    caption: label
                        + say(
                            "step \(say.whole(evaluation.step)): samples compared with the reference images of their class",
                            "ステップ \(say.whole(evaluation.step)): 各クラスの標本と基準画像の比較")))
        }
    }

    /// The settings of several runs' evaluations; listed once if they are equal.
    private func conditions(_ columns: [(run: String?, evaluation: ReportedEvaluation)]) -> String? {
        let stated = columns.map { ($0.run ?? "", conditions($0.evaluation) ?? "") }
        guard let first = stated.first?.1, stated.contains(where: { $0.1 != first }) else {
            return stated.first?.1
        }
        return stated.map { "\($0.0): \($0.1)" }.joined(separator: " · ")
    }

    /// The settings of one evaluation: reference and sampler.
    private func conditions(_ last: ReportedEvaluation?) -> String? {
        guard let last else { return nil }
        var parts: [String] = []
        if let reference = last.reference {
            let count = last.referenceCount.map { " (\(say.whole($0)))" } ?? ""
            parts.append(say("against `\(reference)`\(count)", "基準 `\(reference)`\(count)"))
        }
        if let features = last.features { parts.append(say("features: \(features)", "特徴量 \(features)")) }
        if let steps = last.samplerSteps {
            let eta = last.eta.map { ", η = \(say.number($0))" } ?? ""
            parts.append(say("\(steps) sampling steps\(eta)", "生成 \(steps) ステップ\(eta)"))
        }
        if let seed = last.seed { parts.append(say("seed \(seed)", "シード \(seed)")) }
        return parts.isEmpty ? nil : parts.joined(separator: "; ")
    }

    private var evaluationPictures: [ReportBlock] {
        let pictures = runs.flatMap { run -> [ReportPicture] in
            guard let evaluation = run.evaluations.last(where: { !$0.pictures.isEmpty }) else { return [] }
            return evaluation.pictures.prefix(4).compactMap { picture in
                guard let image = try? Image.read(picture.path) else { return nil }
                let label = isComparison ? "\(run.label): " : ""
                let name = picture.name.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
                return ReportPicture(
                    name: "\(fileName(run))_evaluation_\(name)", image: image.shrunk(toWidth: 960),
                    caption: label + pictureTitle(picture.name)
                        + say(
                            " (step \(say.whole(evaluation.step)))", " (ステップ \(say.whole(evaluation.step)))"),
                    isWide: true)
            }
        }
        return pictures.isEmpty ? [] : [.pictures(pictures)]
    }

    private func pictureTitle(_ name: String) -> String {
        switch name {
        case "nearest": say("samples next to their nearest training images", "標本と最も近い学習画像")
        case "samples": say("samples", "標本")
        default: name.replacingOccurrences(of: "_", with: " ")
        }
    }
}

extension Image {
    /// The image, scaled down to a width of at most `most` pixels.
    func shrunk(toWidth most: Int) -> Image {
        guard width > most else { return self }
        return resized(width: most, height: max(1, (height * most + width / 2) / width), filter: .area)
    }
}
