import Imaging

/// The contents of a report, independent of the output format.
struct ReportDocument {
    var language: ReportLanguage
    var title: String
    /// The line above the title.
    var kind: String
    /// A one-paragraph summary.
    var summary: String
    /// A few figures that are shown prominently at the top.
    var keyFigures: [(value: String, name: String)]
    var sections: [ReportSection]
    /// The last line.
    var colophon: String
}

struct ReportSection {
    /// Identical in all languages; used for anchors and file names.
    var id: String
    var title: String
    var blocks: [ReportBlock]
}

/// Text in blocks is plain text, except that backticks enclose `code`.
enum ReportBlock {
    /// A subheading within a section, one per run.
    case heading(String)
    case paragraph(String)
    case list([String])
    /// A sentence that replaces missing data and states how to produce it.
    case missing(String)
    case facts([(name: String, value: String)])
    case table(ReportTable)
    case charts([ReportChart])
    case pictures([ReportPicture])
    case shares(ReportShares)
    /// Long text, collapsed if the format supports it.
    case details(title: String, text: String)
}

struct ReportTable {
    var head: [String]
    var rows: [[String]]
    /// Indices of the columns with numbers, which are right-aligned.
    var numeric: Set<Int> = []
    var caption: String?

    /// A table in which all columns contain numbers.
    static func ofNumbers(_ head: [String], _ rows: [[String]], caption: String? = nil) -> ReportTable {
        ReportTable(head: head, rows: rows, numeric: Set(head.indices), caption: caption)
    }
}

/// Curves over the steps, or over the quantity that `xName` names.
struct ReportChart {
    /// File name of the PNG, without extension.
    var name: String
    var title: String
    /// Title for the PNG, whose font has only Latin letters.
    var plainTitle: String
    /// Name of the x axis; nil: steps.
    var xName: String?
    var plainXName = "step"
    var yLabel: String
    var series: [LinePlot.Series]
    var isLogarithmic = false
    /// Whether the y axis begins at 0.
    var startsAtZero = false

    var plot: LinePlot {
        LinePlot(
            title: plainTitle, xLabel: plainXName, yLabel: yLabel, series: series, logY: isLogarithmic,
            startsAtZero: startsAtZero)
    }
}

struct ReportPicture {
    /// File name without extension.
    var name: String
    var image: Image
    var caption: String
    /// Whether the picture takes the full width instead of a place in a grid.
    var isWide = false
}

/// Stacked bars of shares, one bar per run.
struct ReportShares {
    struct Part {
        var name: String
        var share: Double
        /// Index in the palette; the same kind of part has the same colour in every bar.
        var color: Int
    }
    var bars: [(name: String, parts: [Part])]
}
