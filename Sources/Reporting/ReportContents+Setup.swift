import Configuration

// The model, its settings, and the hardware and software environment.

extension ReportContents {
    var environment: ReportSection {
        let hosts: Property = (
            say("hosts", "ホスト"), { run in run.sessions.last.map { say.list(Array($0.hosts.prefix(8))) } }
        )
        let ranks: Property = (
            say("ranks × threads", "ランク × スレッド"),
            { run in
                guard let session = run.sessions.last, let ranks = session.ranks else { return nil }
                return "\(ranks) × \(session.threads.map(String.init) ?? "?")"
            }
        )
        let blocks = properties(
            [
                (say("state", "状態"), { stateName($0) }),
                (
                    say("started", "開始"), { run in run.sessions.first?.startedAt.map { say.time($0) } }
                ), hosts, ranks,
                (say("precision", "精度"), { $0.sessions.last?.precision }),
                (say("processor", "プロセッサ"), { $0.sessions.last?.processor }),
                (say("kernels", "カーネル"), { $0.description?["kernels"]?.stringValue }),
                (
                    say("program", "プログラム"),
                    { run in run.sessions.last?.programVersion.map { "disttrain \($0)" } }
                ),
                (say("seed", "シード"), { $0.description?["seed"]?.stringValue ?? $0.settings?["seed"]?.text }),
                (say("initial weights", "初期の重み"), { $0.description?["init_from"]?.stringValue }),
                (say("configuration hash", "設定のハッシュ"), { $0.description?["config_hash"]?.stringValue }),
            ],
            else: say(
                "The environment is recorded in `metrics.jsonl`, which does not exist yet.",
                "実行環境は `metrics.jsonl` に記録されますが、まだありません。"))
        return ReportSection(id: "environment", title: say("Environment", "実行環境"), blocks: blocks)
    }

    var model: ReportSection {
        var blocks = modelFacts
        let models = distinctModels
        for run in models {
            guard let architecture = Architecture(run) else { continue }
            blocks.append(.table(table(of: architecture, models.count > 1 ? run.label : nil)))
        }
        return ReportSection(id: "model", title: say("Model", "モデル"), blocks: blocks)
    }

    var modelFacts: [ReportBlock] {
        properties(
            [
                (
                    say("parameters", "パラメータ数"),
                    { run in Architecture(run).map { "\(say.whole($0.parameterCount))" } }
                ),
                (say("training data", "学習データ"), { dataset($0) }),
                (
                    say("first stage", "第一段"),
                    { run in
                        run.configuration.map {
                            $0.firstStagePath.map { "`\($0)`" } ?? say("none (pixel space)", "なし (画素空間)")
                        }
                    }
                ),
                (
                    say("channels by level", "各段のチャネル数"),
                    { run in
                        (run.configuration?.model.blockOutChannels ?? run.autoencoder?.model.blockOutChannels)
                            .map { $0.map(String.init).joined(separator: ", ") }
                    }
                ),
                (
                    say("blocks per level", "段ごとのブロック数"),
                    { run in
                        (run.configuration?.model.layersPerBlock ?? run.autoencoder?.model.layersPerBlock)
                            .map(String.init)
                    }
                ),
                (
                    say("attention heads", "アテンション"),
                    { run in
                        guard let model = run.configuration?.model else { return nil }
                        return model.attentionHeadDim.map {
                            say("\($0) channels per head", "ヘッドあたり \($0) チャネル")
                        }
                            ?? say("one head", "1 ヘッド")
                    }
                ),
            ],
            else: say(
                "The model is described in `config.yaml`, which is missing or cannot be read.",
                "モデルは `config.yaml` に記録されますが、存在しないか読めません。"))
    }

    /// The first run of each distinct model configuration.
    private var distinctModels: [ReportedRun] {
        var seen: [String] = []
        return runs.filter { run in
            guard let text = run.settings?["model"]?.flattened().map({ "\($0.key)=\($0.value)" }).joined()
            else { return false }
            if seen.contains(text) { return false }
            seen.append(text)
            return true
        }
    }

    func table(of architecture: Architecture, _ label: String?) -> ReportTable {
        ReportTable(
            head: [
                say("part", "部分"), say("block", "ブロック"), say("output", "出力"), say("channels", "チャネル"),
                say("parameters", "パラメータ数"),
            ],
            rows: architecture.parts.map { part in
                [
                    "`\(part.name)`", part.kind, part.side.map { "\($0)×\($0)" } ?? "",
                    part.channels.map { say.whole($0) } ?? "", say.whole(part.parameterCount),
                ]
            }, numeric: [2, 3, 4], caption: label)
    }

    var settings: ReportSection {
        var blocks: [ReportBlock] = []
        if isComparison {
            let differing = differingSettings
            blocks.append(
                differing.isEmpty
                    ? .paragraph(say("All runs have the same settings.", "すべての実行の設定は同じです。"))
                    : .table(
                        ReportTable(
                            head: [say("setting", "異なる設定")] + runs.map(\.label),
                            rows: differing.map { ["`\($0.key)`"] + $0.values })))
        }
        // The table of differing settings above replaces the tables of hyperparameters.
        blocks += hyperParameters.filter { block in
            if case .table = block { false } else { true }
        }
        for run in runs {
            guard let settings = run.settings else { continue }
            let name = isComparison ? "\(run.label): config.yaml" : "config.yaml"
            blocks.append(.details(title: name, text: YAMLNode.text(settings)))
        }
        return ReportSection(id: "settings", title: say("Hyperparameters", "ハイパーパラメータ"), blocks: blocks)
    }

    /// Settings that differ between the runs, except the name.
    var differingSettings: [(key: String, values: [String])] {
        let all = runs.map { run in
            Dictionary(run.settings?.flattened() ?? [], uniquingKeysWith: { first, _ in first })
        }
        let keys = runs.flatMap { $0.settings?.flattened().map(\.key) ?? [] }
        var seen: Set<String> = ["name"]
        return keys.filter { seen.insert($0).inserted }.compactMap { key in
            let values = all.map { $0[key] ?? "–" }
            return Set(values).count > 1 ? (key, values) : nil
        }
    }

    var hyperParameters: [ReportBlock] {
        properties(
            [
                (say("batch size", "バッチサイズ"), { $0.train.map { say.whole($0.batchSize) } }),
                (say("steps", "ステップ数"), { $0.plannedSteps.map { say.whole($0) } }),
                (
                    say("optimizer", "最適化"),
                    { run in
                        run.optimizer.map {
                            "AdamW, β = (\($0.betas[0]), \($0.betas[1])), "
                                + say("weight decay ", "weight decay ") + "\($0.weightDecay)"
                        }
                    }
                ),
                (
                    say("learning rate", "学習率"),
                    { run in
                        run.optimizer.map {
                            say.rate($0.learningRate) + ", "
                                + say(
                                    "warm-up \(say.whole($0.warmupSteps))",
                                    "ウォームアップ \(say.whole($0.warmupSteps))")
                                + ", \($0.schedule.rawValue)"
                        }
                    }
                ),
                (
                    say("gradient clipping", "勾配クリッピング"),
                    { run in run.optimizer.map { $0.clipNorm.map { "\($0)" } ?? say("none", "なし") } }
                ),
                (
                    say("weight averages", "重みの平均 (EMA)"),
                    { run in
                        (run.configuration?.ema ?? run.autoencoder?.ema).map {
                            let powers = $0.sigmaRel.map { "σ_rel \($0)" }
                            let averages = $0.decays.map { "\($0)" } + powers
                            return averages.isEmpty ? say("none", "なし") : averages.joined(separator: ", ")
                        }
                    }
                ),
                (
                    say("diffusion", "拡散過程"),
                    { run in
                        run.configuration.map {
                            "T = \(say.whole($0.diffusion.timesteps)), \($0.diffusion.schedule.rawValue)"
                        }
                    }
                ),
                (
                    say("prediction", "予測対象"),
                    { run in
                        run.configuration.map {
                            $0.diffusion.prediction.rawValue
                                + ($0.diffusion.minSNRGamma.map { ", min-SNR γ = \($0)" } ?? "")
                        }
                    }
                ),
                (
                    say("classes", "クラス"),
                    { run in
                        guard let c = run.configuration, c.model.isConditional else { return nil }
                        let count =
                            c.model.numClassEmbeds.map { say("\($0) embeddings, ", "埋め込み \($0)、") } ?? ""
                        return count
                            + say(
                                "label dropout \(c.diffusion.labelDropout), guidance scale \(c.sampling.guidanceScale)",
                                "ラベル脱落率 \(c.diffusion.labelDropout)、ガイダンス係数 \(c.sampling.guidanceScale)")
                    }
                ),
                (say("sampler for sample grids", "標本の生成"), { run in run.configuration.map { sampler($0) } }),
                (
                    say("loss", "損失"),
                    { run in
                        run.autoencoder.map {
                            "L1 × \($0.loss.l1), MSE × \($0.loss.mse), KL × \($0.loss.kl)"
                        }
                    }
                ),
            ],
            else: say(
                "The settings are recorded in `config.yaml`, which is missing or cannot be read.",
                "設定は `config.yaml` に記録されますが、存在しないか読めません。"))
    }

    func sampler(_ configuration: Configuration) -> String {
        let sampling = configuration.sampling
        let eta = sampling.sampler == .ddim ? ", η = \(say.number(sampling.eta))" : ""
        let karras = sampling.karras ? " (Karras)" : ""
        return "\(sampling.sampler.rawValue.uppercased())\(karras), "
            + say("\(sampling.steps) steps", "\(sampling.steps) ステップ") + eta
    }
}
