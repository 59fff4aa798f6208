import Imaging

/// What a report says, before it is a web page or slides.
struct ReportDocument {
    var language: ReportLanguage
    var title: String
    /// One line over the title.
    var kind: String
    /// The paragraph that says it all.
    var summary: String
    /// A few figures that are seen first.
    var keyFigures: [(value: String, name: String)]
    var sections: [ReportSection]
    /// The last line.
    var colophon: String
}

struct ReportSection {
    /// Stays the same in every language; names anchors and files.
    var id: String
    var title: String
    var blocks: [ReportBlock]
}

/// Text in blocks may hold `code` between backticks, and nothing else that is no plain text.
enum ReportBlock {
    /// Between the parts of a section, one a run.
    case heading(String)
    case paragraph(String)
    case list([String])
    /// One sentence in place of what is not there: what would fill it.
    case missing(String)
    case facts([(name: String, value: String)])
    case table(ReportTable)
    case charts([ReportChart])
    case pictures([ReportPicture])
    case shares(ReportShares)
    /// Long text, folded away where that is possible.
    case details(title: String, text: String)
}

struct ReportTable {
    var head: [String]
    var rows: [[String]]
    /// Columns of numbers, which stand at the right.
    var numeric: Set<Int> = []
    var caption: String?

    /// Every column is one of numbers.
    static func ofNumbers(_ head: [String], _ rows: [[String]], caption: String? = nil) -> ReportTable {
        ReportTable(head: head, rows: rows, numeric: Set(head.indices), caption: caption)
    }
}

/// Curves over the steps, or over what else `xName` says.
struct ReportChart {
    /// The PNG's name.
    var name: String
    var title: String
    /// For the PNG, whose strokes know Latin letters alone.
    var plainTitle: String
    /// What x is; nil: steps.
    var xName: String?
    var plainXName = "step"
    var yLabel: String
    var series: [LinePlot.Series]
    var isLogarithmic = false
    /// The y axis begins at 0.
    var startsAtZero = false

    var plot: LinePlot {
        LinePlot(
            title: plainTitle, xLabel: plainXName, yLabel: yLabel, series: series, logY: isLogarithmic,
            startsAtZero: startsAtZero)
    }
}

struct ReportPicture {
    /// The file's name beside the report, without its ending.
    var name: String
    var image: Image
    var caption: String
    /// Takes the whole width rather than a place among others.
    var isWide = false
}

/// What wholes are made of, one bar a run.
struct ReportShares {
    struct Part {
        var name: String
        var share: Double
        /// Which of the palette's colours: the same for one kind of part in every bar.
        var color: Int
    }
    var bars: [(name: String, parts: [Part])]
}
