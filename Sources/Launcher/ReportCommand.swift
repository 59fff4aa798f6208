import ArgumentParser
import Evaluation
import Reporting
import Support

/// `disttrain report`: creates a web page or slides about runs.
struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Tell what became of one run, or of several side by side.",
        discussion: """
            Reads the runs' folders: finished, broken off or still going. The page is one file that needs no network; \
            curves also lie beside it as PNG files. Slides are Marp's Markdown, for `marp slides.md` or its editor plugin.

              disttrain report runs/quickstart --pictures
              disttrain report runs/a runs/b runs/c --output comparison.html
              disttrain report runs/quickstart --format marp --lang ja --output talk/slides.md
            """)

    @Argument(help: ArgumentHelp("The runs' folders.", valueName: "run"))
    var runs: [String]

    @Option(help: "html or marp.")
    var format = ReportFormat.html

    @Option(name: .customLong("lang"), help: "en or ja.")
    var language = ReportLanguage.english

    @Option(
        help: ArgumentHelp(
            """
            File to write, with a folder of pictures beside it. Default: report/report.html (slides.md) in the run's \
            folder, or of several runs report.html (slides.md) here.
            """, valueName: "file"))
    var output: String?

    @Flag(
        help: """
            First draw strips of the denoising and interpolations with each run's newest weights, into report/ in its folder.
            """)
    var pictures = false

    func validate() throws {
        guard !runs.isEmpty else { throw ValidationError("no run named, expected the folder of one or more") }
    }

    func run() throws {
        let report = try Report(of: runs, language: language)
        if pictures {
            for run in report.runsWithWeights { try draw(run) }
        }
        let path = output ?? report.defaultPath(format)
        let files = try report.write(format, to: path)
        print("Wrote \(path), and its pictures to \(files)")
    }

    private func draw(_ run: ReportedRun) throws {
        guard let configuration = run.configuration else { return }
        let illustrations = try ModelIllustrations(run: run.folder.path, configuration)
        let progress = CountProgress(
            "pictures of \(run.label)", unit: "denoising steps", total: illustrations.denoisingSteps)
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
