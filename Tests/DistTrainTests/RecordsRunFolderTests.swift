import DistTrain
import Foundation
import Testing

@Suite struct RecordsRunFolderTests {
    @Test func makesANewFolderWithItsParents() throws {
        let scratch = try CheckpointScratch()
        let folder = try RunFolder.open(scratch.at("runs/tiny"), name: "tiny", resume: .none)
        #expect(FileManager.default.fileExists(atPath: folder.samples))
        #expect(FileManager.default.fileExists(atPath: folder.checkpoints.path))
        #expect(folder.samples(step: 1000) == scratch.at("runs/tiny/samples/samples_00001000.png"))
        // As it is after a start that ended before its first file.
        _ = try RunFolder.open(folder.path, name: "other", resume: .none)
    }

    @Test func takesUpItsOwnRunOnlyWhenAsked() throws {
        let scratch = try CheckpointScratch()
        let folder = try RunFolder.open(scratch.at("tiny"), name: "tiny", resume: .auto)
        try folder.writeConfiguration("name: tiny\nseed: 0\n")
        #expect(folder.runName == "tiny")
        _ = try RunFolder.open(folder.path, name: "tiny", resume: .auto)
        _ = try RunFolder.open(folder.path, name: "tiny", resume: .path("elsewhere"))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == [
                "checkpoints", "config.yaml", "samples",
            ])

        let again = #expect(throws: RunFolderError.self) {
            try RunFolder.open(folder.path, name: "tiny", resume: .none)
        }
        #expect(again?.message.contains("--resume auto") == true)
        let other = #expect(throws: RunFolderError.self) {
            try RunFolder.open(folder.path, name: "faces", resume: .auto)
        }
        #expect(other?.message.contains("holds the run 'tiny', expected 'faces'") == true)
        #expect(other?.exitStatus == ExitStatus.usage)
    }

    @Test func refusesWhatIsNoRun() throws {
        let scratch = try CheckpointScratch()
        try Data("x".utf8).write(to: URL(fileURLWithPath: scratch.at("thesis.tex")))
        let filled = #expect(throws: RunFolderError.self) {
            try RunFolder.open(scratch.path, name: "tiny", resume: .auto)
        }
        #expect(filled?.message.contains("'thesis.tex'") == true)
        let file = #expect(throws: RunFolderError.self) {
            try RunFolder.open(scratch.at("thesis.tex"), name: "tiny", resume: .auto)
        }
        #expect(file?.message.contains("is a file") == true)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["thesis.tex"])
    }

    @Test func saysWhereItCannotWrite() throws {
        // /proc takes no new files from anybody, root included.
        let error = #expect(throws: RunFolderError.self) {
            try RunFolder.open("/proc/runs/tiny", name: "tiny", resume: .auto)
        }
        #expect(error?.message.hasPrefix("/proc/runs/tiny: cannot be created: ") == true)
    }
}
