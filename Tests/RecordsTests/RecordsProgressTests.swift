import Foundation
import Records
import Support
import Testing

/// A terminal of a given width, or a file (nil), that records its output.
private final class Screen {
    var width: Int?
    var text = ""
    var now = 1000.0

    init(width: Int?) { self.width = width }

    lazy var status = StatusLine(width: { [unowned self] in width }, write: { [unowned self] in text += $0 })
    /// The lines drawn, without control characters.
    var draws: [String] {
        text.components(separatedBy: "\r\u{1B}[K").dropFirst().map { $0.trimmingCharacters(in: .newlines) }
    }
}

@Suite struct RecordsProgressTests {
    @Test func aLineAStepWithoutATerminal() {
        let screen = Screen(width: nil)
        let progress = TrainingProgress(
            total: 5000, first: 1000, status: screen.status, clock: { screen.now })
        screen.now += 100
        progress.update(step: 1050, loss: 0.5, learningRate: 2e-4, imagesPerSecond: 32)
        screen.now += 100
        progress.update(step: 1100, loss: 0.4, learningRate: 2e-4, imagesPerSecond: 32)
        progress.note("saved")
        progress.finish()
        #expect(
            screen.text == """
                step 1050/5000  loss 0.5000  lr 2.0e-04  32.0 images/s  ETA 2 h 12 min  elapsed 2 min
                step 1100/5000  loss 0.4700  lr 2.0e-04  32.0 images/s  ETA 2 h 10 min  elapsed 3 min
                saved

                """)
    }

    @Test func redrawnInPlaceWithinTheWidth() {
        let screen = Screen(width: 80)
        let progress = TrainingProgress(total: 500, status: screen.status, clock: { screen.now })
        screen.now += 10
        progress.update(step: 100, loss: 0.25, learningRate: 1e-3, imagesPerSecond: 123.4)
        screen.width = 40
        screen.now += 10
        progress.update(step: 200, loss: 0.25, learningRate: 1e-3, imagesPerSecond: 123.4)
        screen.width = 8
        progress.update(step: 500, loss: 0.25, learningRate: 1e-3, imagesPerSecond: 123.4)
        #expect(
            screen.draws == [
                "step 100/500  loss 0.2500  lr 1.0e-03  123.4 images/s  ETA 40 s  elapsed 10 s",
                "step 200/500  loss 0.2500  lr 1.0e-03", "step 50",
            ])
        #expect(!screen.text.contains("\n"))
        progress.note("a warning")
        #expect(screen.text.hasSuffix("\r\u{1B}[Ka warning\nstep 50"))
        progress.finish()
        #expect(screen.text.hasSuffix("step 50\n"))
    }

    @Test func aLossThatIsNoNumberShowsAndPasses() {
        let screen = Screen(width: nil)
        let progress = TrainingProgress(total: 3, status: screen.status, clock: { screen.now })
        for (step, loss) in [(1, Double.nan), (2, 0.5), (3, 0.5)] {
            screen.now += 1
            progress.update(step: step, loss: loss, learningRate: 0, imagesPerSecond: 1)
        }
        let lines = screen.text.split(separator: "\n")
        #expect(lines[0].contains("loss nan") || lines[0].contains("loss -nan"))
        #expect(lines[2].contains("loss 0.5000"))
        #expect(!lines[2].contains("ETA"))
    }

    @Test func countsShowNowAndThen() {
        let screen = Screen(width: 80)
        let progress = CountProgress(
            "sample", unit: "images", total: 1000, status: screen.status, clock: { screen.now })
        for done in 1...1000 {
            screen.now += 1 / 64
            progress.update(done)
        }
        progress.finish(1000)
        #expect(screen.draws.count < 90)
        #expect(screen.draws[1].hasPrefix("sample: 14/1000 images (1 %)  64.0 images/s  ETA 15 s"))
        #expect(
            screen.draws.last?.hasPrefix("sample: 1000/1000 images (100 %)  64.0 images/s  in 16 s") == true)

        let file = Screen(width: nil)
        let quiet = CountProgress(
            "sample", unit: "images", total: 1000, status: file.status, clock: { file.now })
        for done in 1...999 {
            file.now += 0.1
            quiet.update(done)
        }
        #expect(file.text.split(separator: "\n").count == 10)
    }

    @Test func durationsReadWell() {
        #expect(
            [0, 59.6, 99, 150, 5999, 12000, 200_000, .infinity, -1].map { duration($0) } == [
                "0 s", "60 s", "99 s", "3 min", "1 h 40 min", "3 h 20 min", "2 d 7 h", "unknown", "unknown",
            ])
    }

    @Test func aBrokenPipeIsNoMatter() throws {
        // Standard error is a pipe whose reader has closed it; the process ignores SIGPIPE, as main does.
        signal(SIGPIPE, SIG_IGN)
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        close(ends[0])
        let status = StatusLine(descriptor: ends[1])
        #expect(!status.isTerminal)
        status.show(["step 1/2"])
        status.finish()
        close(ends[1])
    }

    @Test func aReaderThatSleepsIsWaitedForOnce() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        defer { ends.forEach { close($0) } }
        let size = Int(fcntl(ends[1], 1032))  // F_GETPIPE_SZ, which Swift does not import
        let console = Console(descriptor: ends[1], patience: 0.05)
        let line = String(repeating: "x", count: 99) + "\n"
        // With `print`, the line that fills the pipe would block forever.
        for _ in 0..<(size / line.count + 1000) { console.write(line) }

        // Writing resumes as soon as the reader reads, and the reader receives only complete lines.
        var text = ""
        func read() {
            var bytes = [UInt8](repeating: 0, count: 4 * size)
            let count = Foundation.read(ends[0], &bytes, bytes.count)
            text += String(decoding: bytes[..<max(0, count)], as: UTF8.self)
        }
        read()
        console.write("awake\n")
        read()
        let lines = text.split(separator: "\n").map { $0 + "\n" }
        #expect(lines.count > 100 && lines.dropLast().allSatisfy { $0 == line })
        #expect(lines.last == "awake\n")
    }
}
