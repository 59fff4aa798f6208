import Checkpointing
import DistTrain
import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// A small U-Net and an autoencoder in folders, as a run would leave them.
private struct Models {
    let unet: UNet2DModel
    let autoencoder: AutoencoderKL
    let scheduler: SchedulerConfig
    let vaeFolder: String

    init(_ scratch: ScratchFolder) throws {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(8)
        config.inChannels = 4
        config.outChannels = 4
        config.blockOutChannels = [8, 16]
        config.downBlockTypes = [.plain, .attention]
        config.upBlockTypes = [.attention, .plain]
        config.layersPerBlock = 1
        config.normNumGroups = 4
        unet = try UNet2DModel(config)
        unet.store.initialize(seed: 1)
        var vae = AutoencoderKLConfig()
        vae.blockOutChannels = [8, 16]
        vae.downBlockTypes = Array(vae.downBlockTypes.prefix(1)) + Array(vae.downBlockTypes.prefix(1))
        vae.upBlockTypes = Array(vae.upBlockTypes.prefix(1)) + Array(vae.upBlockTypes.prefix(1))
        vae.normNumGroups = 4
        vae.latentChannels = 4
        vae.sampleSize = SpatialSize(16)
        autoencoder = try AutoencoderKL(vae)
        autoencoder.store.initialize(seed: 2)
        var scheduler = SchedulerConfig()
        scheduler.betaSchedule = .squaredCosine
        scheduler.clipSample = false
        self.scheduler = scheduler
        vaeFolder = scratch.file("models/vae")
        try ModelFolder(vaeFolder).save(vae, autoencoder.store)
    }

    /// Saves a checkpoint of a latent run, whose average is twice the weights, on two ranks.
    func saveCheckpoint(
        in folder: CheckpointFolder, step: Int, firstStage: String, hash: String? = nil
    ) throws {
        let run = RunIdentity(
            name: "latent", seed: 0, configuration: "name: latent\n", modelConfig: try unet.config.jsonText(),
            schedulerConfig: try scheduler.jsonText(),
            firstStage: FirstStageReference(path: firstStage, weightsHash: hash, scalingFactor: 0.75),
            programVersion: "0.1.0")
        let average = UnsafeMutablePointer<Float>.allocate(capacity: unet.store.count)
        average.initialize(repeating: 0, count: unet.store.count)
        defer { average.deallocate() }
        for i in 0..<unet.store.count { average[i] = 2 * unet.store.values[i] }
        let table = TensorTable(unet.store)
        let buffers = [
            StateBuffer("unet", unet.store.values, 0..<unet.store.count),
            StateBuffer("ema-0.99", unet.store.values, 0..<unet.store.count),
            StateBuffer("ema-0.9999", average, 0..<unet.store.count),
        ]
        try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
        let draft = CheckpointDraft(folder: folder, step: step, id: "t")
        try draft.create(buffers.map(\.folder))
        let shards = try (0..<2).map { try draft.writeShards(buffers, table, rank: $0, of: 2) }
        _ = try draft.commit(
            shards: shards, table, folders: buffers.map(\.folder), modelConfig: run.modelConfig
        ) {
            CheckpointManifest(
                run: run, step: step, samplesSeen: 0, worldSize: 2, attemptID: "t", savedAt: 0,
                folders: buffers.map(\.folder), parameters: table, files: $0)
        }
    }
}

@Suite struct RecordsPipelineTests {
    @Test func aRunGivesItsNewestAverageItsSchedulerAndItsFirstStage() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        let run = scratch.file("runs/latent")
        let folder = CheckpointFolder(run + "/checkpoints")
        // Relative to the folder in which the run was started, which is not the test's working directory.
        for step in [900, 1000] {
            try models.saveCheckpoint(in: folder, step: step, firstStage: "models/vae")
        }

        for path in [run, folder.path(step: 1000), folder.path(step: 1000) + "/ema-0.9999"] {
            let found = try PipelineFolder.read(path)
            #expect(found.step == 1000)
            #expect(found.unet.path == folder.path(step: 1000) + "/ema-0.9999")
            #expect(found.unetConfig == models.unet.config)
            #expect(found.scheduler == models.scheduler)
            #expect(found.firstStage?.path == models.vaeFolder)
            #expect(found.firstStageReference?.scalingFactor == 0.75)
            let loaded = try found.unet.loadUNet()
            for (mine, theirs) in zip(loaded.store.parameters, models.unet.store.parameters) {
                #expect(mine.values.elementsEqual(theirs.values.map { 2 * $0 }))
            }
        }
        #expect(try PipelineFolder.read(run, weights: "unet").unet.path.hasSuffix("step-00001000/unet"))
        #expect(
            try PipelineFolder.read(folder.path(step: 900) + "/ema-0.99").unet.path.hasSuffix("900/ema-0.99"))
        let wrong = #expect(throws: ModelFolderError.self) {
            try PipelineFolder.read(run, weights: "ema-0.5")
        }
        #expect(wrong?.description.contains("expected unet or ema-0.99 or ema-0.9999") == true)
    }

    @Test func aFirstStageThatIsGoneIsNamed() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        try models.saveCheckpoint(in: folder, step: 10, firstStage: "models/gone")
        let error = #expect(throws: ModelFolderError.self) { try PipelineFolder.read(scratch.file("run")) }
        #expect(error?.description.contains("'models/gone'") == true)
        let found = try PipelineFolder.read(scratch.file("run"), firstStage: models.vaeFolder)
        #expect(found.firstStage?.path == models.vaeFolder)
    }

    @Test func aPipelineIsWrittenAndRead() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        let path = scratch.file("run/model")
        // Twice: the second replaces the first.
        try PipelineFolder.write(path, unet: models.unet, scheduler: models.scheduler)
        #expect(try ConfigNode(jsonFile: path + "/model_index.json")["_class_name"]?.json == "DDIMPipeline")
        #expect(try PipelineFolder.read(path).firstStage == nil)
        try PipelineFolder.write(
            path, unet: models.unet, scheduler: models.scheduler, firstStage: ModelFolder(models.vaeFolder),
            trained: FirstStageReference(path: models.vaeFolder, scalingFactor: 0.5))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("run")) == ["model"])

        for asked in [path, scratch.file("run"), path + "/unet"] {
            let found = try PipelineFolder.read(asked)
            #expect(found.unet.path == path + "/unet")
            #expect(found.unetConfig == models.unet.config)
            #expect(found.scheduler == models.scheduler)
            #expect(found.firstStage?.path == path + "/vqvae")
            #expect(found.step == nil)
        }
        #expect(
            try ConfigNode(jsonFile: path + "/model_index.json").json == [
                "_class_name": "LDMPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
                "unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "AutoencoderKL"],
            ])
        guard case .autoencoderKL(let copy) = try ModelFolder(path + "/vqvae").loadAutoencoder() else {
            Issue.record("not an AutoencoderKL")
            return
        }
        #expect(copy.config.scalingFactor == 0.5)
        for (mine, theirs) in zip(copy.store.parameters, models.autoencoder.store.parameters) {
            #expect(mine.values.elementsEqual(theirs.values))
        }
        #expect(try PipelineFolder.locateAutoencoder(path).path == path + "/vqvae")
        #expect(try PipelineFolder.locateAutoencoder(models.vaeFolder).path == models.vaeFolder)
    }

    @Test func aCheckpointIsExported() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        try models.saveCheckpoint(in: folder, step: 10, firstStage: models.vaeFolder)
        let output = scratch.file("exported")
        func export(_ weights: String?) throws {
            try CheckpointExport(
                model: scratch.file("run"), weights: weights, firstStage: nil, format: WeightFormat(),
                output: output
            ).run()
        }
        for (weights, factor) in [("unet", Float(1)), (nil, 2)] as [(String?, Float)] {
            try export(weights)
            let found = try PipelineFolder.read(output)
            #expect(found.scheduler == models.scheduler)
            // The scaling of the training, instead of the autoencoder's own.
            #expect(try found.loadFirstStage(dtype: .float32)?.scalingFactor == 0.75)
            let loaded = try found.unet.loadUNet()
            for (mine, theirs) in zip(loaded.store.parameters, models.unet.store.parameters) {
                #expect(mine.values.elementsEqual(theirs.values.map { factor * $0 }))
            }
        }
        #expect(throws: ModelFolderError.self) { try export("ema-0.5") }
        // A damaged file is not exported, and the existing output is kept.
        let shard = folder.path(step: 10) + "/unet/" + ModelFolder.shardName(1, of: 2)
        try flipBit(shard, at: -5)
        #expect(throws: CheckpointError.self) { try export("unet") }
        try export("ema-0.99")
        #expect(try PipelineFolder.read(output).unetConfig == models.unet.config)
    }

    @Test func anotherFirstStageIsRefused() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        try models.saveCheckpoint(
            in: folder, step: 10, firstStage: models.vaeFolder, hash: "0123456789abcdef")
        let export = { (firstStage: String?) in
            try CheckpointExport(
                model: scratch.file("run"), weights: nil, firstStage: firstStage, format: WeightFormat(),
                output: scratch.file("exported")
            ).run()
        }
        let error = #expect(throws: RunError.self) { try export(nil) }
        #expect(error?.message.contains("different weights than the first stage") == true)
        try export(models.vaeFolder)
    }

    @Test func neverReplacesWhatIsNoPipeline() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        #expect(throws: ModelFolderError.self) {
            try PipelineFolder.write(scratch.file("models"), unet: models.unet, scheduler: models.scheduler)
        }
        #expect(FileManager.default.fileExists(atPath: models.vaeFolder + "/config.json"))
    }

    @Test func bareModelsAndWrongFolders() throws {
        let scratch = try ScratchFolder()
        let models = try Models(scratch)
        try ModelFolder(scratch.file("bare")).save(models.unet.config, models.unet.store)
        let bare = try PipelineFolder.read(scratch.file("bare"))
        #expect(bare.unetConfig == models.unet.config)
        #expect(bare.scheduler == nil && bare.firstStage == nil && bare.step == nil)
        for path in [models.vaeFolder, scratch.path, scratch.file("nowhere")] {
            #expect(throws: ModelFolderError.self) { try PipelineFolder.read(path) }
        }
        // A run that was stopped before its first checkpoint.
        let stopped = try RunFolder.open(scratch.file("young"), name: "young", resume: .auto)
        try stopped.writeConfiguration("name: young\n")
        stopped.lock?.release()
        let young = #expect(throws: ModelFolderError.self) { try PipelineFolder.read(scratch.file("young")) }
        #expect(young?.description.contains("without a checkpoint") == true)
    }
}
