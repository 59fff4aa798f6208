import ArgumentParser
import Evaluation
import Reporting
import Support

/// `disttrain report`: creates a web page or slides about runs.
struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Create a report about one run, or a comparison of several.",
        discussion: """
            Reads the folders of runs that are finished, interrupted or in progress. The HTML page is a single file \
            without external resources; the curves are also written as PNG files next to it. Slides are Marp Markdown, \
            for `marp slides.md` or its editor plugin.

              disttrain report runs/quickstart --pictures
              disttrain report runs/a runs/b runs/c --output comparison.html
              disttrain report runs/quickstart --format marp --lang ja --output talk/slides.md
            """)

    @Argument(help: ArgumentHelp("Folders of the runs.", valueName: "run"))
    var runs: [String]

    @Option(help: "Output format: html or marp.")
    var format = ReportFormat.html

    @Option(name: .customLong("lang"), help: "Language: en or ja.")
    var language = ReportLanguage.english

    @Option(
        help: ArgumentHelp(
            """
            Output file; its images are written to a folder next to it. Default: report/report.html (slides.md) in the \
            run's folder, or report.html (slides.md) in the current folder for several runs.
            """, valueName: "file"))
    var output: String?

    @Flag(
        help: """
            First generate images of the denoising process and of interpolations with each run's newest weights, in \
            report/ in its folder.
            """)
    var pictures = false

    func validate() throws {
        guard !runs.isEmpty else {
            throw ValidationError("no run given, expected one or more folders of runs")
        }
    }

    func run() throws {
        let report = try Report(of: runs, language: language)
        if pictures {
            for run in report.runsWithWeights { try draw(run) }
        }
        let path = output ?? report.defaultPath(format)
        let files = try report.write(format, to: path)
        print("Wrote \(path) and its images to \(files)")
    }

    private func draw(_ run: ReportedRun) throws {
        guard let configuration = run.configuration else { return }
        let illustrations = try ModelIllustrations(run: run.folder.path, configuration)
        let progress = CountProgress(
            "images of \(run.label)", unit: "denoising steps", total: illustrations.denoisingSteps)
        var done = 0
        try illustrations.draw(into: run.pictureFolder, step: run.lastStep) { count in
            done += count
            progress.update(done)
        }
        progress.finish(done)
    }
}

extension ReportFormat: ExpressibleByArgument {}
extension ReportLanguage: ExpressibleByArgument {}
