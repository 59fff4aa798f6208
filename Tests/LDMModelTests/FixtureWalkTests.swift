import FileFormats
import Testing
import TestSupport

@Suite struct FixtureWalkTests {
    @Test func everyCaseIsReadable() {
        #expect(FixtureCase.faults == [])
    }

    @Test func everyKindIsCommitted() {
        #expect(FixtureCase.committed(.unet).count == 9)
        #expect(FixtureCase.committed(.autoencoderKL).count == 3)
        for kind in FixtureKind.allCases { #expect(!FixtureCase.committed(kind).isEmpty, "\(kind)") }
    }

    /// A folder with a case of `kind` in `path`.
    private func folder(_ json: String, at path: String = "deep/down") throws -> ScratchFolder {
        let folder = try ScratchFolder()
        try folder.write("\(path)/case.json", json)
        try SafetensorsWriter.write(
            [("loss", [3], [1, 2, 3])], to: "\(folder.path)/\(path)/case.safetensors")
        return folder
    }

    @Test func casesLieAtAnyDepth() throws {
        let one = try folder(#"{"kind": "training"}"#)
        let other = try folder(#"{"kind": "ddim"}"#)
        let walk = FixtureWalk(list: "\(one.path):\(other.path)/deep/down:\(other.path)")
        #expect(walk.faults == [])
        #expect(walk.cases.map(\.kind) == [.training, .ddim])
        #expect(walk.cases.map(\.path) == ["\(one.path)/deep/down", "\(other.path)/deep/down"])
        #expect(FixtureWalk(list: "").cases.isEmpty)
        withExtendedLifetime((one, other)) {}
    }

    @Test func nothingIsPassedOverInSilence() throws {
        let empty = try ScratchFolder()
        let unknown = try folder(#"{"kind": "unett"}"#)
        let broken = try folder(#"{"kind": "unet""#)
        let nameless = try folder("{}")
        let bare = try ScratchFolder()
        try bare.write("case.json", #"{"kind": "unet"}"#)
        let damaged = try folder(#"{"kind": "unet"}"#)
        try damaged.write("deep/down/case.safetensors", "not tensors")
        for (path, words) in [
            ("/nowhere/at/all", "no folder"), (empty.path, "holds no case"),
            (unknown.path, "'unett', expected one of unet, autoencoder_kl"), (broken.path, "case.json"),
            (nameless.path, "has no kind"), (bare.path, "has no case.safetensors"),
            (damaged.path, "case.safetensors"),
        ] {
            let walk = FixtureWalk(list: path)
            #expect(walk.cases.isEmpty && walk.faults.count == 1, "\(path): \(walk.faults)")
            let fault = walk.faults.first ?? ""
            #expect(fault.contains(path) && fault.contains(words) && !fault.contains("\n"), "\(fault)")
        }
        withExtendedLifetime([empty, unknown, broken, nameless, bare, damaged]) {}
    }

    @Test func aMissingTensorIsNamed() throws {
        let folder = try folder(#"{"kind": "training", "optimizer": {"lr": 2}}"#)
        let fixture = try #require(FixtureWalk(list: folder.path).cases.first)
        withExtendedLifetime(folder) {}
        let error = #expect(throws: FixtureError.self) { try fixture.tensor(["grad_norm"]) }
        #expect(error?.description.contains("has no tensor 'grad_norm'") == true)
        #expect(try fixture.trace(["losses", "loss"], count: 3) == [1, 2, 3])
        #expect(throws: FixtureError.self) { try fixture.trace(["loss"], count: 4) }
        #expect(try fixture.settings.number(["learning_rate", "lr"]) == 2)
        #expect(throws: FixtureError.self) { try fixture.settings.number(["eps"]) }
        #expect(throws: FixtureError.self) { try fixture.settings.string(["lr"]) }
    }
}
