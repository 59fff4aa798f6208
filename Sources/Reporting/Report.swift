import Foundation
import Support

/// What a report is written as.
package enum ReportFormat: String, Sendable, CaseIterable {
    /// One web page.
    case html
    /// A slide deck in Marp's Markdown (https://marpit.marp.app).
    case marp

    var fileName: String { self == .html ? "report.html" : "slides.md" }
}

/// `disttrain report`: what became of one run, or of several beside each other. It reads their folders and computes
/// nothing anew.
package struct Report {
    private let contents: ReportContents

    /// - Parameters:
    ///   - runs: folders of runs, at least one.
    /// - Throws: `ReportError` where one is no run's folder; what opening a model throws.
    package init(of runs: [String], language: ReportLanguage = .english) throws {
        contents = ReportContents(
            runs: try ReportedRun.open(runs), say: language, now: Date().timeIntervalSince1970)
    }

    /// The runs whose models can sample.
    package var runsWithWeights: [ReportedRun] { contents.runs.filter(\.hasWeights) }

    /// Where a report goes unless told otherwise: into the run's `report` folder, of several runs into this folder.
    package func defaultPath(_ format: ReportFormat) -> String {
        contents.isComparison ? format.fileName : "\(contents.runs[0].pictureFolder)/\(format.fileName)"
    }

    /// Writes the report to `path`, and its pictures into a folder beside it: `report.html`, `report_files/`.
    ///
    /// - Returns: the folder of the pictures.
    @discardableResult
    package func write(_ format: ReportFormat, to path: String) throws -> String {
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
