import Foundation
import LDMModel

/// What a report is written as.
public enum ReportFormat: String, Sendable, CaseIterable {
    /// One web page.
    case html
    /// A slide deck in Marp's Markdown (https://marpit.marp.app).
    case marp

    var fileName: String { self == .html ? "report.html" : "slides.md" }
}

/// `disttrain report`: what became of one run, or of several beside each other. It reads their folders and computes
/// nothing anew.
public struct Report {
    private let contents: ReportContents

    /// - Parameters:
    ///   - runs: folders of runs, at least one.
    ///   - drawsPictures: draw strips of the denoising and interpolations first, into each run's `report` folder: with
    ///     the model, so it may take a while. Otherwise those are shown that are there.
    /// - Throws: `ReportError` where one is no run's folder; what opening a model throws.
    public init(of runs: [String], language: ReportLanguage = .english, drawsPictures: Bool = false) throws {
        contents = ReportContents(
            runs: try ReportedRun.open(runs), say: language, now: Date().timeIntervalSince1970)
        guard drawsPictures else { return }
        for run in contents.runs where run.hasWeights {
            let steps = run.configuration?.sampling.steps ?? 0
            let progress = CountProgress(
                "pictures of \(run.label)", unit: "denoising steps", total: ReportedRun.drawnSamples * steps)
            var done = 0
            try run.drawPictures { count in
                done += count
                progress.update(done)
            }
            progress.finish(done)
        }
    }

    /// Where a report goes unless told otherwise: into the run's `report` folder, of several runs into this folder.
    public func defaultPath(_ format: ReportFormat) -> String {
        contents.isComparison ? format.fileName : "\(contents.runs[0].pictureFolder)/\(format.fileName)"
    }

    /// Writes the report to `path`, and its pictures into a folder beside it: `report.html`, `report_files/`.
    ///
    /// - Returns: the folder of the pictures.
    @discardableResult
    public func write(_ format: ReportFormat, to path: String) throws -> String {
        let parent = (path as NSString).deletingLastPathComponent
        let stem = ((path as NSString).lastPathComponent as NSString).deletingPathExtension
        let files = (parent as NSString).appendingPathComponent("\(stem)_files")
        try makeOutputFolder(files)
        let charts: [ReportChart]
        let text: String
        switch format {
        case .html:
            let document = contents.document()
            charts = document.sections.flatMap(\.blocks).flatMap { block -> [ReportChart] in
                if case .charts(let charts) = block { charts } else { [] }
            }
            text = HTMLPage(document: document).text()
        case .marp:
            let deck = MarpDeck(contents, pictureFolder: (files as NSString).lastPathComponent)
            charts = deck.charts
            for picture in deck.pictures { try picture.image.write(to: "\(files)/\(picture.name).png") }
            text = deck.text()
        }
        for chart in charts { try chart.plot.render().write(to: "\(files)/\(chart.name).png") }
        try AtomicFile.write(Array(text.utf8), to: path)
        return files
    }
}
