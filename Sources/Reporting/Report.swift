import Foundation
import Records
import Support

/// The output format of a report.
package enum ReportFormat: String, Sendable, CaseIterable {
    /// A single web page.
    case html
    /// A slide deck in Marp's Markdown (https://marpit.marp.app).
    case marp

    var fileName: String { self == .html ? "report.html" : "slides.md" }
}

/// `disttrain report`: reports on one run, or compares several. Reads the run folders and recomputes nothing.
package struct Report {
    private let contents: ReportContents

    /// - Parameters:
    ///   - runs: run folders, at least one.
    /// - Throws: `ReportError` if a path is not a run folder; errors from opening a model.
    package init(of runs: [String], language: ReportLanguage = .english) throws {
        contents = ReportContents(
            runs: try ReportedRun.open(runs), say: language, now: Date().timeIntervalSince1970)
    }

    /// The runs whose models can be sampled.
    package var runsWithWeights: [ReportedRun] { contents.runs.filter(\.hasWeights) }

    /// The default output path: in the `report` folder of a single run; in the working directory for several
    /// runs.
    package func defaultPath(_ format: ReportFormat) -> String {
        contents.isComparison ? format.fileName : "\(contents.runs[0].pictureFolder)/\(format.fileName)"
    }

    /// Writes the report to `path` and its pictures to a folder next to it: `report.html`, `report_files/`.
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

extension SamplingPictureKind {
    func caption(_ say: ReportLanguage) -> String {
        switch self {
        case .denoising:
            return say(
                "from noise to sample: x_t (top) and the model's estimate of x₀ (bottom)",
                "ノイズから標本まで: 上段は x_t、下段はモデルが予測する x₀")
        case .interpolation:
            return say(
                "interpolation between the initial noise of two samples, one pair per row",
                "2 つの標本のノイズ間の補間 (1 行に 1 組)")
        }
    }
}

/// Why a report cannot be generated, in one line.
package struct ReportError: ReportableError {
    package let path: String
    package let detail: String

    init(_ path: String, _ detail: String) { (self.path, self.detail) = (path, detail) }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.usage }
}
