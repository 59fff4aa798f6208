import FileFormats
import Foundation
import LDMModel
import Testing
import TestSupport

@Suite struct ModelFolderTests {
    @Test(
        "saved weights load again, with current names", arguments: ["unet_old_names", "unet_no_attention"])
    func roundTrip(name: String) throws {
        let model = try FixtureCase.committed(name).model().loadUNet()
        let temporary = try ScratchFolder()
        let folder = ModelFolder(temporary.path + "/unet")
        try folder.save(model.config, model.store)
        let again = try folder.loadUNet()
        #expect(again.config == model.config)
        #expect(again.store.parameters.map(\.name) == model.store.parameters.map(\.name))
        #expect(snapshot(again.store) == snapshot(model.store))
        let files = try WeightFiles(path: folder.path)
        #expect(files.names == model.store.parameters.map(\.name).sorted())
        #expect(files.files.compactMap { ($0 as? SafetensorsFile)?.metadata } == [["format": "pt"]])
    }

    @Test func savesOtherValues() throws {
        let model = try FixtureCase.committed("unet_attention").model().loadUNet()
        let average = UnsafeMutablePointer<Float>.allocate(capacity: model.store.count)
        average.initialize(repeating: 0, count: model.store.count)
        defer { average.deallocate() }
        for i in 0..<model.store.count { average[i] = 0.25 }
        let temporary = try ScratchFolder()
        let folder = ModelFolder(temporary.path)
        try folder.save(model.config, model.store, values: UnsafePointer(average))
        let loaded = snapshot(try folder.loadUNet().store)
        #expect(loaded.values.allSatisfy { $0.allSatisfy { $0 == 0.25 } })
    }

    @Test func everythingThatDoesNotFitIsNamedAtOnce() throws {
        let fixture = try FixtureCase.committed("unet_attention")
        let model = try fixture.model().loadUNet()
        let before = snapshot(model.store)
        let files = try WeightFiles(path: fixture.model().path)
        let temporary = try ScratchFolder()
        var entries: [(SafetensorsEntry, [Float])] = []
        for name in files.names where name != "conv_in.bias" && name != "conv_out.weight" {
            let floats = try files.floats(of: name).map { $0 + 1 }
            let shape = name == "conv_out.bias" ? [1, 3] : try files.info(of: name).shape
            entries.append((SafetensorsEntry(name, shape: shape), floats))
        }
        entries.append((SafetensorsEntry("surplus", shape: [2]), [0, 0]))
        // An old name in addition to its new name is unexpected.
        entries.append((SafetensorsEntry("mid_block.attentions.0.query.bias", shape: [1]), [0]))
        var writer = try SafetensorsWriter(
            path: temporary.path + "/model.safetensors", tensors: entries.map(\.0))
        for (entry, floats) in entries { try writer.append(entry.name, floats: floats) }
        try writer.finish()

        let error = #expect(throws: ModelFolderError.self) {
            try ModelFolder(temporary.path).loadWeights(into: model.store)
        }
        #expect(error?.missing == ["conv_in.bias", "conv_out.weight"])
        #expect(error?.unexpected.sorted() == ["mid_block.attentions.0.to_q.bias", "surplus"])
        #expect(error?.misshapen.count == 2)
        #expect(error?.description.contains("conv_out.bias is F32 [1, 3], expected [3]") == true)
        #expect(error?.description.contains("\n") == false)
        #expect(snapshot(model.store) == before)
    }

    @Test func halfPrecisionWeightsLoad() throws {
        let fixture = try FixtureCase.committed("unet_attention")
        let model = try fixture.model().loadUNet()
        let temporary = try ScratchFolder()
        var writer = try SafetensorsWriter(
            path: temporary.path + "/model.safetensors",
            tensors: model.store.parameters.map { SafetensorsEntry($0.name, dtype: .bf16, shape: $0.shape) })
        let values = snapshot(model.store)
        for parameter in model.store.parameters {
            try writer.append(parameter.name, floats: values[parameter.name] ?? [])
        }
        try writer.finish()
        let other = try UNet2DModel(model.config)
        try ModelFolder(temporary.path).loadWeights(into: other.store)
        for (name, loaded) in snapshot(other.store) {
            #expect(relativeNorm(loaded, values[name] ?? []) < 1 / 256, "\(name)")
        }
    }

    @Test func presentNames() {
        let old = "encoder.mid_block.attentions.0"
        #expect(WeightLoading.presentName("\(old).query.weight") == "\(old).to_q.weight")
        #expect(WeightLoading.presentName("\(old).proj_attn.bias") == "\(old).to_out.0.bias")
        #expect(WeightLoading.presentName("\(old).to_k.bias") == "\(old).to_k.bias")
        #expect(WeightLoading.presentName("monkey.weight") == "monkey.weight")
    }

    @Test func theClassDecides() throws {
        guard case .unet = try FixtureCase.committed("unet_ddpm").model().readModelConfig(),
            case .autoencoderKL = try FixtureCase.committed("kl_f2").model().readModelConfig(),
            case .vqModel = try FixtureCase.committed("vq").model().readModelConfig()
        else {
            Issue.record("a configuration of another class")
            return
        }
        for (wrong, load) in [
            ("autoencoder", { _ = try FixtureCase.committed("vq").model().loadUNet() }),
            ("UNet2DModel", { _ = try FixtureCase.committed("unet_ddpm").model().loadAutoencoder() }),
        ] as [(String, () throws -> Void)] {
            let error = #expect(throws: ModelFolderError.self) { try load() }
            #expect(error?.description.contains("holds a") == true && error?.message.contains(wrong) == true)
        }
    }

    @Test(arguments: [
        ("config.json", "{}", "has no _class_name"),
        ("config.json", #"{"_class_name": "Transformer"}"#, "expected UNet2DModel, AutoencoderKL or VQModel"),
        ("model_index.json", "{}", "is a whole pipeline"),
        ("other.txt", "", "has no config.json"),
    ])
    func foldersThatAreNoModel(file: String, text: String, expected: String) throws {
        let temporary = try ScratchFolder()
        try temporary.write(file, text)
        let error = #expect(throws: ModelFolderError.self) {
            try ModelFolder(temporary.path).readModelConfig()
        }
        #expect(error?.description.contains(expected) == true)
    }

    @Test func missingFolder() {
        let error = #expect(throws: ModelFolderError.self) {
            try ModelFolder("/nowhere/model").readModelConfig()
        }
        #expect(error?.description.contains("/nowhere/model: does not exist") == true)
    }
}
