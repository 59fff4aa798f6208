/// A report as slides in Marp's Markdown: a document with front matter, slides separated by `---` and speaker
/// notes in comments.
///
/// Format: https://marpit.marp.app/markdown and https://marpit.marp.app/directives.
struct MarpDeck {
    private struct Slide {
        var title: String
        var blocks: [ReportBlock]
        /// Speaker notes.
        var note: String?

        /// The slide's CSS class; nil for the default style.
        var look: String? {
            let isBar = blocks.contains {
                if case .shares(let shares) = $0 { shares.bars.count == 1 } else { false }
            }
            if isBar { return "shares" }
            let rows = blocks.map { block in
                switch block {
                case .table(let table): min(table.rows.count, MarpDeck.mostRows)
                case .facts(let facts): facts.count
                default: 0
                }
            }
            return rows.reduce(0, +) > MarpStyle.looseRows ? "dense" : nil
        }
    }

    /// Maximum table rows on a slide in the dense style.
    private static let mostRows = 15

    let contents: ReportContents
    /// The picture folder, relative to the slides.
    let pictureFolder: String
    private let slides: [Slide]
    /// Shown next to the title: the last samples of a single run.
    private let cover: ReportPicture?

    private var say: ReportLanguage { contents.say }

    init(_ contents: ReportContents, pictureFolder: String) {
        self.contents = contents
        self.pictureFolder = pictureFolder
        slides = Self.slides(contents)
        cover = contents.isComparison ? nil : contents.sampleGrids(contents.runs[0], most: 1).last
    }

    var charts: [ReportChart] {
        slides.flatMap(\.blocks).flatMap { block -> [ReportChart] in
            if case .charts(let charts) = block { charts } else { [] }
        }
    }

    var pictures: [ReportPicture] {
        (cover.map { [$0] } ?? [])
            + slides.flatMap(\.blocks).flatMap { block -> [ReportPicture] in
                if case .pictures(let pictures) = block { pictures } else { [] }
            }
    }

    // MARK: Contents

    /// Maximum table rows on a slide with other content.
    private static let rows = 8

    private static func slides(_ contents: ReportContents) -> [Slide] {
        let say = contents.say
        var slides = [
            Slide(
                title: say("Goal", "目的"), blocks: [.list(contents.goal)],
                note: say("Presenter: add the background and the significance.", "背景と意義は発表者が補ってください。")),
            Slide(title: say("Method", "手法"), blocks: [.list(contents.method)]),
            Slide(
                title: say("Setup: data and model", "実験設定: データとモデル"), blocks: contents.modelFacts),
        ]
        if !contents.isComparison, let architecture = Architecture(contents.runs[0]) {
            let table = contents.table(of: architecture, nil)
            slides.append(
                Slide(title: say("Setup: architecture", "実験設定: 構造"), blocks: [.table(table)]))
        }
        slides.append(
            Slide(
                title: say("Setup: hyperparameters", "実験設定: ハイパーパラメータ"),
                blocks: contents.isComparison ? differences(contents) : contents.hyperParameters))
        slides.append(
            Slide(title: say("Setup: environment", "実験設定: 計算環境"), blocks: contents.environment.blocks))
        slides.append(
            Slide(title: say("Results: loss", "結果: 損失"), blocks: [contents.lossTable(rows: 6)]))
        slides.append(
            Slide(
                title: say("Results: curves", "結果: 学習曲線"),
                blocks: contents.lossChart.map { [.charts([$0])] } ?? contents.curves.blocks))
        // A chart fills a slide. For a single run, the statements about throughput are on the next slide.
        let (chart, speeds) = (contents.throughput.blocks.prefix(1), contents.throughput.blocks.dropFirst())
        let throughput = say("Results: throughput", "結果: スループット")
        slides.append(Slide(title: throughput, blocks: Array(chart)))
        if contents.isComparison, !speeds.isEmpty {
            slides.append(Slide(title: throughput, blocks: Array(speeds)))
        }
        slides.append(
            Slide(
                title: say("Results: time breakdown", "結果: 時間の内訳"),
                blocks: Array(contents.time.blocks.prefix(1)) + (contents.isComparison ? [] : Array(speeds))))
        slides += samples(contents)
        slides += pictures(contents.denoising, say("Results: sampling", "結果: 生成過程"))
        slides += pictures(contents.evaluation, say("Evaluation", "評価"))
        slides.append(
            Slide(
                title: say("Problems and restarts", "問題と再開"), blocks: course(contents)))
        slides.append(
            Slide(
                title: say("Discussion", "考察"), blocks: [.list(contents.discussion)],
                note: say(
                    "Presenter: add what the pictures show, and why. The list contains only what the records show.",
                    "図から読み取れることとその理由は発表者が補ってください。一覧は記録から分かることだけです。")))
        slides.append(
            Slide(
                title: say("Next steps", "今後の課題"), blocks: [.list(contents.nextSteps)],
                note: contents.colophon))
        return slides
    }

    private static func differences(_ contents: ReportContents) -> [ReportBlock] {
        let differing = contents.differingSettings
        guard !differing.isEmpty else { return contents.hyperParameters }
        let rows = differing.prefix(rows).map { ["`\($0.key)`"] + $0.values }
        let more = differing.count - rows.count
        return [
            .table(
                ReportTable(
                    head: [contents.say("setting", "異なる設定")] + contents.runs.map(\.label), rows: rows,
                    caption: more > 0 ? contents.say("and \(more) more", "ほか \(more) 件") : nil))
        ]
    }

    private static func samples(_ contents: ReportContents) -> [Slide] {
        let say = contents.say
        let title = say("Results: samples by step", "結果: ステップごとの標本")
        let slides = contents.runs.compactMap { run -> Slide? in
            let grids = contents.sampleGrids(run, most: 4)
            guard !grids.isEmpty else { return nil }
            return Slide(
                title: contents.isComparison ? "\(title): \(run.label)" : title, blocks: [.pictures(grids)])
        }
        return slides.isEmpty ? [Slide(title: title, blocks: contents.samples.blocks)] : slides
    }

    /// One slide for each picture, chart or table of a section.
    private static func pictures(_ section: ReportSection, _ title: String) -> [Slide] {
        section.blocks.flatMap { block -> [Slide] in
            switch block {
            case .pictures(let pictures): pictures.map { Slide(title: title, blocks: [.pictures([$0])]) }
            case .charts(let charts): charts.map { Slide(title: title, blocks: [.charts([$0])]) }
            case .heading: []
            default: [Slide(title: title, blocks: [block])]
            }
        }
    }

    private static func course(_ contents: ReportContents) -> [ReportBlock] {
        let say = contents.say
        guard contents.isComparison else {
            // The table and the notes share one slide.
            return contents.course(of: contents.runs[0]).map { block in
                switch block {
                case .table(var table):
                    table.rows = table.rows.suffix(rows)
                    return .table(table)
                case .list(let notes): return .list(notes.suffix(5))
                default: return block
                }
            }
        }
        return [
            .table(
                ReportTable(
                    head: ["", say("state", "状態"), say("steps", "ステップ"), say("restarts", "再開回数")],
                    rows: contents.runs.map { run in
                        [
                            run.label, contents.stateName(run),
                            "\(say.whole(run.lastStep ?? 0)) / \(run.plannedSteps.map { say.whole($0) } ?? "?")",
                            "\(run.restartCount)",
                        ]
                    }, numeric: [2, 3]))
        ]
    }

    // MARK: Markdown

    func text() -> String {
        let style = MarpStyle.css.split(separator: "\n").map { "  \($0)" }.joined(separator: "\n")
        let head = """
            ---
            marp: true
            theme: default
            paginate: true
            size: 16:9
            lang: \(say.rawValue)
            title: "\(contents.title.filter { !"\"\\".contains($0) && !$0.isNewline })"
            style: |
            \(style)
            ---

            <!-- _class: lead -->
            <!-- _paginate: false -->

            # \(markdown(contents.title))

            \(markdown(contents.summary))

            """ + (cover.map { "\n![bg right:45% 92%](\(pictureFolder)/\($0.name).png)\n" } ?? "")
        return head + slides.map(slide).joined()
    }

    private func slide(_ slide: Slide) -> String {
        let note = slide.note.map { "\n<!-- \($0.replacingOccurrences(of: "--", with: "–")) -->\n" } ?? ""
        let look = slide.look.map { "<!-- _class: \($0) -->\n\n" } ?? ""
        return "\n---\n\n\(look)# \(markdown(slide.title))\n\n"
            + slide.blocks.map { block($0) }.filter { !$0.isEmpty }.joined(separator: "\n\n") + "\n" + note
    }

    private func block(_ block: ReportBlock) -> String {
        switch block {
        case .heading(let text): return "**\(markdown(text))**"
        case .paragraph(let text): return "*\(markdown(text))*"
        case .missing(let text): return markdown(text)
        case .list(let items): return items.prefix(9).map { "- \(markdown($0))" }.joined(separator: "\n")
        case .facts(let facts):
            return table(["", ""], facts.map { [$0.name, $0.value] }, numeric: [])
        case .table(let content):
            let caption = content.caption.map { $0.isEmpty ? "" : "\n\n*\(markdown($0))*" } ?? ""
            return table(content.head, Array(content.rows.suffix(Self.mostRows)), numeric: content.numeric)
                + caption
        case .charts(let charts):
            return charts.map { "![h:\(MarpStyle.pictureHeight)](\(pictureFolder)/\($0.name).png)" }.joined(
                separator: "\n")
        case .pictures(let pictures):
            guard pictures.count > 1 else {
                return pictures.map { picture in
                    let (width, height) = (MarpStyle.pictureWidth, MarpStyle.pictureHeight)
                    let isWide = picture.image.width * height > picture.image.height * width
                    return
                        "![\(isWide ? "w:\(width)" : "h:\(height)")](\(pictureFolder)/\(picture.name).png)\n\n"
                        + "*\(markdown(picture.caption))*"
                }.joined()
            }
            // Subtract the padding of the table cells.
            let width = min(440, MarpStyle.pictureWidth / pictures.count - 15)
            return table(
                pictures.map(\.caption), [], numeric: [])
                + "\n| "
                + pictures.map { "![w:\(width)](\(pictureFolder)/\($0.name).png)" }
                .joined(separator: " | ") + " |"
        case .shares(let shares):
            guard shares.bars.count > 1, let first = shares.bars.first else {
                return shares.bars.map { bar in
                    table(
                        ["", "", ""],
                        bar.parts.map { [$0.name, Self.bar(of: $0.share), say.percent($0.share)] },
                        numeric: [2])
                }.joined()
            }
            let names = shares.bars.dropFirst().flatMap(\.parts).reduce(into: first.parts.map(\.name)) {
                names, part in
                if !names.contains(part.name) { names.append(part.name) }
            }
            let rows = shares.bars.map { bar in
                [bar.name]
                    + names.map { name in
                        bar.parts.first { $0.name == name }.map { say.percent($0.share) } ?? "–"
                    }
            }
            return table([""] + names, rows, numeric: Set(1...names.count))
        case .details: return ""
        }
    }

    /// A bar of block characters: 40 for a share of 1, with a resolution of one eighth of a character.
    private static func bar(of share: Double) -> String {
        let eighths = Int((max(0, min(1, share)) * 40 * 8).rounded())
        let rest = eighths % 8 == 0 ? "" : String(Array("▏▎▍▌▋▊▉")[eighths % 8 - 1])
        return String(repeating: "█", count: eighths / 8) + rest
    }

    private func table(_ head: [String], _ rows: [[String]], numeric: Set<Int>) -> String {
        func row(_ cells: [String]) -> String { "| " + cells.map(markdown).joined(separator: " | ") + " |" }
        let rule = "|" + head.indices.map { numeric.contains($0) ? "---:|" : "---|" }.joined()
        return ([row(head), rule] + rows.map(row)).joined(separator: "\n")
    }

    /// Escapes plain text for Markdown, except `code` between backticks.
    private func markdown(_ text: String) -> String {
        let oneLine = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        let parts = oneLine.split(separator: "`", omittingEmptySubsequences: false)
        return parts.enumerated().map { index, part in
            if index % 2 == 1, parts.count % 2 == 1 {
                return "`\(part.replacingOccurrences(of: "|", with: "\\|"))`"
            }
            var out = ""
            for character in part {
                if "\\*_[]<>|#~`".contains(character) { out.append("\\") }
                out.append(character)
            }
            return out
        }.joined(separator: parts.count % 2 == 1 ? "" : "\\`")
    }
}

/// The style of the slides: CSS on top of Marp's default theme, whose slides measure 1280×720 pixels.
enum MarpStyle {
    /// Pixels available for a picture or chart between a slide's title and the caption.
    static let pictureWidth = 1100
    static let pictureHeight = 480

    /// Number of table rows above which a slide gets the class `dense`.
    static let looseRows = 9

    static let css = """
        section { font-size: 26px; padding: 44px 64px 56px; place-content: start; font-family: "Helvetica Neue", Arial, "Noto Sans", "Hiragino Sans", "Noto Sans CJK JP", sans-serif; }
        section.lead { place-content: center; }
        h1 { font-size: 1.4em; color: #1f2328; border-bottom: 3px solid #2a66b0; padding-bottom: 0.25em; margin-bottom: 0.6em; }
        section.lead h1 { font-size: 2.3em; border: none; margin-bottom: 0.2em; }
        em { font-style: normal; font-size: 0.75em; color: #5c636b; }
        table { display: table; width: 100%; font-size: 0.85em; line-height: 1.35; }
        section.dense table { font-size: 0.65em; }
        tr, tr:nth-child(2n) { background: none; border: none; }
        th, td { border: none; border-bottom: 1px solid #d8dee4; padding: 0.25em 0.7em; }
        th { text-align: left; }
        thead:not(:has(th:not(:empty))) { display: none; }
        table:has(img) th, table:has(img) td { border: none; padding: 0.2em; text-align: center; font-weight: normal; }
        p:has(> img:only-child) { text-align: center; margin-bottom: 0.2em; }
        p:has(> img:only-child) + p { text-align: center; }
        section.shares td:nth-child(2) { color: #2a66b0; white-space: nowrap; width: 60%; }
        """
}
