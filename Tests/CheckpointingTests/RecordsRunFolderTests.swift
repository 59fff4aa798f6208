import Checkpointing
import Foundation
import Imaging
import Support
import Testing
import TestSupport

@Suite struct RecordsRunFolderTests {
    @Test func makesANewFolderWithItsParents() throws {
        let scratch = try ScratchFolder()
        let folder = try RunFolder.open(scratch.file("runs/tiny"), name: "tiny", resume: .none)
        #expect(FileManager.default.fileExists(atPath: folder.samples))
        #expect(FileManager.default.fileExists(atPath: folder.checkpoints.path))
        #expect(folder.samples(step: 1000) == scratch.file("runs/tiny/samples/samples_00001000.png"))
        folder.lock?.release()
        // The state of the folder after a start that ended before it wrote its first file.
        try RunFolder.open(folder.path, name: "other", resume: .none).lock?.release()
    }

    @Test func takesUpItsOwnRunOnlyWhenAsked() throws {
        let scratch = try ScratchFolder()
        let folder = try RunFolder.open(scratch.file("tiny"), name: "tiny", resume: .auto)
        try folder.writeConfiguration("name: tiny\nseed: 0\n")
        folder.lock?.release()
        #expect(folder.runName == "tiny")
        try RunFolder.open(folder.path, name: "tiny", resume: .auto).lock?.release()
        try RunFolder.open(folder.path, name: "tiny", resume: .path("elsewhere")).lock?.release()
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == [
                ".lock", "checkpoints", "config.yaml", "samples",
            ])

        let again = #expect(throws: RunFolderError.self) {
            try RunFolder.open(folder.path, name: "tiny", resume: .none)
        }
        #expect(again?.message.contains("--resume auto") == true)
        let other = #expect(throws: RunFolderError.self) {
            try RunFolder.open(folder.path, name: "faces", resume: .auto)
        }
        #expect(other?.message.contains("contains the run 'tiny', expected 'faces'") == true)
        #expect(other?.exitStatus == ExitStatus.usage)
    }

    @Test func refusesWhatIsNoRun() throws {
        let scratch = try ScratchFolder()
        try Data("x".utf8).write(to: URL(fileURLWithPath: scratch.file("thesis.tex")))
        let filled = #expect(throws: RunFolderError.self) {
            try RunFolder.open(scratch.path, name: "tiny", resume: .auto)
        }
        #expect(filled?.message.contains("'thesis.tex'") == true)
        let file = #expect(throws: RunFolderError.self) {
            try RunFolder.open(scratch.file("thesis.tex"), name: "tiny", resume: .auto)
        }
        #expect(file?.message.contains("is a file") == true)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["thesis.tex"])
    }

    @Test func saysWhereItCannotWrite() throws {
        // /proc accepts no new files from any user, including root.
        let error = #expect(throws: RunFolderError.self) {
            try RunFolder.open("/proc/runs/tiny", name: "tiny", resume: .auto)
        }
        #expect(error?.message.hasPrefix("/proc/runs/tiny: cannot be created: ") == true)
    }

    @Test func picturesOfALeftPastAreSetAside() throws {
        let scratch = try ScratchFolder()
        let run = try RunFolder.open(scratch.file("tiny"), name: "tiny", resume: .auto)
        defer { run.lock?.release() }
        func write(_ path: String, _ text: String) throws {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        }
        func names(_ folder: String) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
        }
        for step in [0, 10, 20, 30] { try write(run.samples(step: step), "\(step)") }
        try write("\(run.samples)/mine.png", "mine")
        try write("\(run.path)/loss.png", "of step 30")
        try write(
            run.metrics, (1...2).map { "{\"kind\":\"step\",\"step\":\($0 * 10),\"loss\":1}\n" }.joined())
        try run.cutPicturesBack(to: 10)
        #expect(
            try names(run.samples) == [
                "mine.png", "samples_00000000.png", "samples_00000010.png", "superseded",
            ])
        let aside = "\(run.samples)/superseded"
        #expect(try names(aside) == ["samples_00000020.png", "samples_00000030.png"])
        #expect(try Image.read("\(run.path)/loss.png").width > 100)

        // Repeat from an earlier step, and from scratch: existing superseded files are replaced.
        try write(run.samples(step: 20), "again")
        try Data().write(to: URL(fileURLWithPath: run.metrics))
        try run.cutPicturesBack(to: nil)
        #expect(try names(run.samples) == ["mine.png", "superseded"])
        #expect(try String(contentsOfFile: "\(aside)/samples_00000020.png", encoding: .utf8) == "again")
        #expect(!FileManager.default.fileExists(atPath: "\(run.path)/loss.png"))
    }
}
