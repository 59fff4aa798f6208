import Checkpointing
import FileFormats
import Foundation
import LDMModel
import Testing
import TestSupport

/// A U-Net with a few thousand parameters.
func tinyUNet(channels: Int = 3, seed: UInt64 = 1) throws -> UNet2DModel {
    var config = UNet2DConfig()
    config.sampleSize = SpatialSize(8)
    (config.inChannels, config.outChannels) = (channels, channels)
    config.blockOutChannels = [8, 16]
    config.downBlockTypes = [.plain, .attention]
    config.upBlockTypes = [.attention, .plain]
    config.layersPerBlock = 1
    config.normNumGroups = 4
    let model = try UNet2DModel(config)
    model.store.initialize(seed: seed)
    return model
}

/// An autoencoder with f = 2.
func tinyAutoencoder(_ change: (inout AutoencoderKLConfig) -> Void = { _ in }) throws -> AutoencoderKL {
    var config = AutoencoderKLConfig()
    config.blockOutChannels = [8, 16]
    config.downBlockTypes = [.plain, .plain]
    config.upBlockTypes = [.plain, .plain]
    config.normNumGroups = 4
    change(&config)
    let model = try AutoencoderKL(config)
    model.store.initialize(seed: 2)
    return model
}

extension ScratchFolder {
    func at(_ name: String) -> String { "\(path)/\(name)" }

    func make(_ name: String) throws {
        try FileManager.default.createDirectory(atPath: at(name), withIntermediateDirectories: true)
    }
}

@Suite struct PipelineLayoutTests {
    private let scheduler = #"{"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1"}"#

    @Test("early pipelines have model and scheduler next to the index") func flatLayout() throws {
        let temporary = try ScratchFolder()
        let unet = try tinyUNet()
        try ModelFolder(temporary.path).save(unet.config, unet.store)
        try temporary.write("scheduler_config.json", scheduler)
        try temporary.write(
            "model_index.json",
            #"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],"#
                + #" "unet": ["diffusers", "UNet2DModel"]}"#)
        let found = try PipelineFolder.read(temporary.path)
        #expect(found.scheduler?.schedulerClass == .ddpm)
        #expect(found.firstStage == nil)
        #expect(snapshot(try found.unet.loadUNet().store) == snapshot(unet.store))
        #expect(try PipelineFolder.locateUNet(temporary.path).path == temporary.path)
    }

    @Test("an autoencoder is found by either name", arguments: ["vae", "vqvae"])
    func autoencoders(name: String) throws {
        let temporary = try ScratchFolder()
        let unet = try tinyUNet(channels: 4)
        let autoencoder = try tinyAutoencoder()
        try ModelFolder(temporary.at("unet")).save(unet.config, unet.store)
        try ModelFolder(temporary.at(name)).save(autoencoder.config, autoencoder.store)
        let other = name == "vae" ? "vqvae" : "vae"
        try temporary.write(
            "model_index.json",
            #"{"_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": [null, null],"#
                + #" "\#(other)": [null, null], "\#(name)": ["diffusers", "AutoencoderKL"]}"#)
        let found = try PipelineFolder.read(temporary.path)
        #expect(found.firstStage?.path == temporary.at(name))
        #expect(found.scheduler == nil)
        #expect(try PipelineFolder.locateAutoencoder(temporary.path).path == temporary.at(name))
    }

    @Test func pipelinesWithoutAUNetAreNamed() throws {
        let temporary = try ScratchFolder()
        try temporary.write(
            "model_index.json", #"{"_class_name": "DiTPipeline", "transformer": ["diffusers", "X"]}"#)
        let error = #expect(throws: ModelFolderError.self) { try PipelineFolder.read(temporary.path) }
        #expect(error?.description.contains("'DiTPipeline', without a 'unet'") == true)
    }

    @Test func aPipelineHasNoWeightsToChooseFrom() throws {
        let temporary = try ScratchFolder()
        let unet = try tinyUNet()
        try PipelineFolder.write(temporary.at("p"), unet: unet, scheduler: SchedulerConfig())
        #expect(try PipelineFolder.read(temporary.at("p"), weights: "unet").unetConfig == unet.config)
        try ModelFolder(temporary.at("bare")).save(unet.config, unet.store)
        for path in [temporary.at("p"), temporary.at("p/unet"), temporary.at("bare")] {
            let error = #expect(throws: ModelFolderError.self) {
                try PipelineFolder.read(path, weights: "ema-0.9999")
            }
            #expect(error?.description.contains("expected a checkpoint with 'ema-0.9999'") == true)
        }
    }

    @Test func nothingElseIsReplaced() throws {
        let temporary = try ScratchFolder()
        let unet = try tinyUNet()
        try temporary.write("letter.txt", "keep me")
        for path in [temporary.path, temporary.at("letter.txt")] {
            #expect(throws: ModelFolderError.self) {
                try PipelineFolder.write(path, unet: unet, scheduler: SchedulerConfig())
            }
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary.path) == ["letter.txt"])
    }
}

@Suite struct PipelineFormatTests {
    private func rewritten(_ unet: UNet2DModel, _ format: WeightFormat) throws -> (
        ScratchFolder, ModelFolder
    ) {
        let temporary = try ScratchFolder()
        try PipelineFolder.write(temporary.at("from"), unet: unet, scheduler: SchedulerConfig())
        try PipelineFolder.read(temporary.at("from")).write(to: temporary.at("to"), format)
        return (temporary, ModelFolder(temporary.at("to/unet")))
    }

    @Test func shardsHoldAllTensorsOnce() throws {
        let unet = try tinyUNet()
        let (temporary, folder) = try rewritten(unet, WeightFormat(maxShardBytes: 20_000))
        let files = try WeightFiles(path: folder.path)
        #expect(files.files.count > 2)
        let names = files.files.map { ($0.path as NSString).lastPathComponent }
        #expect(names == names.indices.map { ModelFolder.shardName($0, of: names.count) })
        for file in files.files {
            let bytes = try file.names.reduce(0) { try $0 + file.info(of: $1).byteRange.count }
            #expect(bytes <= 20_000 || file.names.count == 1)
        }
        let total = unet.store.parameterCount * 4
        let index = temporary.at("to/unet/diffusion_pytorch_model.safetensors.index.json")
        #expect(try SafetensorsIndex(contentsOf: index).totalSize == total)
        #expect(snapshot(try folder.loadUNet().store) == snapshot(unet.store))
    }

    @Test("weight files of all types", arguments: [SafetensorsDType.f16, .bf16, .f32, .f64]) func types(
        dtype: SafetensorsDType
    ) throws {
        let unet = try tinyUNet()
        let (temporary, folder) = try rewritten(unet, WeightFormat(dtype: dtype))
        defer { withExtendedLifetime(temporary) {} }
        let files = try WeightFiles(path: folder.path)
        #expect(try files.names.allSatisfy { try files.info(of: $0).dtype == dtype })
        let expected = snapshot(unet.store)
        let tolerance: [SafetensorsDType: Float] = [.f16: 0x1p-11, .bf16: 0x1p-8]
        for (name, loaded) in snapshot(try folder.loadUNet().store) {
            for (found, value) in zip(loaded, expected[name] ?? []) {
                // Subnormal fp16 numbers have a spacing of 2⁻²⁴.
                #expect(
                    abs(found - value) <= abs(value) * (tolerance[dtype] ?? 0) + (dtype == .f16 ? 0x1p-24 : 0)
                )
            }
        }
    }

    @Test func whatFP16CannotHoldIsRefused() throws {
        let unet = try tinyUNet()
        unet.store.parameters[0].values[3] = -70_000
        let error = #expect(throws: ModelFolderError.self) { try rewritten(unet, WeightFormat(dtype: .f16)) }
        #expect(error?.description.contains(unet.store.parameters[0].name) == true)
        #expect(error?.description.contains("-70000.0, which fp16 cannot hold") == true)
        _ = try rewritten(unet, WeightFormat(dtype: .bf16))
    }

    @Test func weightsThatDoNotFitAreNamedAndNothingIsLeft() throws {
        let temporary = try ScratchFolder()
        let (unet, wider) = (try tinyUNet(), try tinyUNet(channels: 4))
        try PipelineFolder.write(temporary.at("from"), unet: unet, scheduler: SchedulerConfig())
        try wider.config.write(to: temporary.at("from/unet/config.json"))
        let error = #expect(throws: ModelFolderError.self) {
            try PipelineFolder.read(temporary.at("from")).write(to: temporary.at("to"))
        }
        #expect(
            Set(error?.misshapen.compactMap { $0.split(separator: " ").first } ?? [])
                == ["conv_in.weight", "conv_out.weight", "conv_out.bias"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary.path) == ["from"])
    }

    @Test("the most precise of several variants is read") func variants() throws {
        let temporary = try ScratchFolder()
        func write(_ name: String, _ value: Float) throws {
            try SafetensorsWriter.write([("a", [1], [value])], to: temporary.at(name))
        }
        func read() throws -> Float { try WeightFiles(path: temporary.path).floats(of: "a")[0] }
        try write("diffusion_pytorch_model.bf16.safetensors", 1)
        #expect(try read() == 1)
        try write("diffusion_pytorch_model.fp16-00001-of-00001.safetensors", 2)
        try SafetensorsIndex(
            weightMap: ["a": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"], totalSize: 4
        ).write(to: temporary.at("diffusion_pytorch_model.safetensors.index.fp16.json"))
        #expect(try read() == 2)
        try write("diffusion_pytorch_model.non_ema.safetensors", 3)
        #expect(try read() == 2)
        try write("diffusion_pytorch_model.safetensors", 4)
        #expect(try read() == 4)
    }
}

@Suite struct PipelineReplacementTests {
    private func read(_ path: String) throws -> Float {
        let unet = try PipelineFolder.read(path).loadUNet()
        return withExtendedLifetime(unet) { unet.store.values[0] }
    }

    @Test("a pipeline is replaced in one step, and a crash between two renames is repaired")
    func replacement() throws {
        let temporary = try ScratchFolder()
        let model = temporary.at("model")
        let unet = try tinyUNet(channels: 4)
        func write(_ value: Float) throws {
            unet.store.values[0] = value
            try PipelineFolder.write(model, unet: unet, scheduler: SchedulerConfig())
        }
        func names() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: (model as NSString).deletingLastPathComponent)
                .filter { $0.hasPrefix("model") }
        }
        try write(1)
        try write(2)
        let written = try read(model)
        #expect(written == 2)
        #expect(try names() == ["model"])

        // On a file system that cannot exchange names: the old folder has been renamed, and the new one does
        // not have its name yet.
        try FileManager.default.moveItem(atPath: model, toPath: model + ".replaced")
        try FileManager.default.createDirectory(
            atPath: model + ".partial-4711", withIntermediateDirectories: true)
        PipelineFolder.recoverInterruptedWrite(at: model)
        #expect(try read(model) == 2)
        #expect(try names() == ["model"])
    }
}

@Suite struct PipelineShiftTests {
    /// Encodes and decodes like a pipeline that only supports scaling_factor.
    private func pass(_ stage: FirstStage, shift: Float) throws -> (latents: [Float], images: [Float]) {
        let image = (0..<2 * 8 * 8 * 3).map { sin(Float($0)) }
        let encoded = try image.withUnsafeBufferPointer {
            try stage.encode($0, batch: 2, height: 8, width: 8)
        }
        let latents = (0..<2 * 4 * 4 * 4).map { cos(Float($0)) }
        let images = latents.map { $0 + shift }.withUnsafeBufferPointer {
            stage.decode($0, batch: 2, height: 4, width: 4)
        }
        return (encoded.mean.map { $0 - shift }, images)
    }

    @Test("a shift, which LDMPipeline does not support, is folded in", arguments: [true, false])
    func shift(hasConvolutions: Bool) throws {
        let temporary = try ScratchFolder()
        let autoencoder = try tinyAutoencoder {
            ($0.useQuantConv, $0.usePostQuantConv) = (hasConvolutions, hasConvolutions)
            $0.shiftFactor = 0.375
        }
        try ModelFolder(temporary.at("vae")).save(autoencoder.config, autoencoder.store)
        try PipelineFolder.write(
            temporary.at("p"), unet: tinyUNet(channels: 4), scheduler: SchedulerConfig(),
            firstStage: ModelFolder(temporary.at("vae")),
            trained: FirstStageReference(path: "", scalingFactor: 2.5, shiftFactor: 0.75))
        let written = try FirstStage(folder: ModelFolder(temporary.at("p/vqvae")))
        #expect(written.scalingFactor == 2.5 && written.shiftFactor == 0)
        let expected = try pass(FirstStage(.autoencoderKL(autoencoder)), shift: 0.75)
        let found = try pass(written, shift: 0)
        #expect(relativeNorm(found.latents, expected.latents) < 1e-5)
        #expect(relativeNorm(found.images, expected.images) < 1e-5)
    }
}
