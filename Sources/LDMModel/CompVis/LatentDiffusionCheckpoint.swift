import FileFormats
import Foundation
import Support

/// A checkpoint of latent-diffusion (Rombach et al., 2022) or of its autoencoders, as published by CompVis:
/// PyTorch's or safetensors files with names such as "model.diffusion_model.input_blocks.0.0.weight".
///
/// It is converted to diffusers' models. Names and shapes determine most of the configuration; the rest comes
/// from the original YAML file, or from the buffers of the noise schedule in the checkpoint.
///
/// - Source: github.com/CompVis/latent-diffusion, ldm/models/diffusion/ddpm.py, ldm/modules/ema.py.
package struct LatentDiffusionCheckpoint {
    /// What was assumed because nothing specifies it, one sentence each.
    package private(set) var notes: [String] = []
    /// Whether the average of the weights is used.
    package private(set) var isAveraged = false

    private let path: String
    private var unet: CompVisUNet?
    private var firstStage: CompVisAutoencoder?
    private var scheduler = SchedulerConfig()

    /// Opens a checkpoint.
    ///
    /// - Parameters:
    ///   - original: the model's configuration in the original format, with a section `model`.
    ///   - averaged: whether to use the average of the weights if the checkpoint has one.
    /// - Throws: `SafetensorsError`, `ModelFolderError` or `ConfigError`.
    package init(_ path: String, original: ConfigNode?, averaged: Bool = true) throws {
        self.path = path
        let files = try WeightFiles(path: path)
        let names = Set(files.names)
        let settings = try OriginalSettings(original)
        let hasUNet = names.contains { $0.hasPrefix(Self.unetPrefix) }
        let stagePrefix = hasUNet ? "first_stage_model." : ""
        if names.contains("\(stagePrefix)encoder.conv_in.weight") {
            let part = names.filter { $0.hasPrefix(stagePrefix) && !Self.isTrainingState($0, stagePrefix) }
            firstStage = try CompVisAutoencoder(
                module(files, prefix: stagePrefix, root: "", names: part, averaged: averaged),
                scale: try Self.scaleFactor(files, names) ?? settings.scaleFactor ?? 1,
                imageSize: settings.imageSize)
        }
        guard hasUNet else {
            guard firstStage != nil else {
                throw ModelFolderError(
                    path,
                    "is not a checkpoint of latent-diffusion: it has neither 'model.diffusion_model.…' nor"
                        + " 'encoder.…', but \(shortList(files.names, limit: 3))")
            }
            return
        }
        if let conditioner = names.filter({ $0.hasPrefix("cond_stage_model.") }).min() {
            throw ModelFolderError(
                path, "is a conditional model ('\(conditioner)'); only unconditional models can be converted")
        }
        let module = module(
            files, prefix: Self.unetPrefix, root: "model.",
            names: names.filter { $0.hasPrefix(Self.unetPrefix) },
            averaged: averaged)
        if !settings.isGiven {
            notes.append(
                "no original configuration (--config): attention heads of \(Self.usualHeadChannels) channels,"
                    + " as in the published unconditional models")
        }
        var sampleSize = settings.sampleSize
        if sampleSize == nil, !settings.isGiven {
            sampleSize = 256 / (firstStage?.downsamplingFactor ?? 1)
            notes.append("no original configuration (--config): images of 256 pixels")
        }
        unet = try CompVisUNet(
            module, headChannels: settings.isGiven ? settings.headChannels : Self.usualHeadChannels,
            sampleSize: sampleSize)
        scheduler = try schedule(files, names, settings)
    }

    /// Writes a pipeline, or an autoencoder's folder if the checkpoint has no U-Net. The folder is written
    /// completely or not at all.
    ///
    /// - Returns: what was written, for a message.
    package func write(to output: String, _ format: WeightFormat) throws -> String {
        guard let unet else {
            guard let firstStage else { preconditionFailure("a checkpoint has at least one model") }
            try WholeFolder.write(output, replacing: ModelFolder.configFile) { draft in
                try firstStage.save(to: ModelFolder(draft), format)
            }
            return "the autoencoder"
        }
        let weights = try WeightSource(unet.tensors, fitting: UNet2DModel(unet.config).store)
        guard let firstStage else {
            try PipelineFolder.write(
                output, unet.config, weights, format, scheduler, firstStage: nil, trained: nil)
            return "the pipeline, in pixel space"
        }
        // The pipeline copies an autoencoder's folder.
        let draft = AtomicFile.temporaryPath(for: PipelineFolder.absolute(output) + "-first-stage")
        defer { try? FileManager.default.removeItem(atPath: draft) }
        try firstStage.save(to: ModelFolder(draft), format)
        try PipelineFolder.write(
            output, unet.config, weights, format, scheduler, firstStage: ModelFolder(draft), trained: nil)
        return "the pipeline"
    }

    // MARK: Weights

    private static let unetPrefix = "model.diffusion_model."
    private static let usualHeadChannels = 32

    /// A module's names. The average's names are the model's without dots: "model_ema.encoderconv_inweight".
    ///
    /// - Parameter root: the part of the names that the average's names do not have.
    private mutating func module(
        _ files: WeightFiles, prefix: String, root: String, names own: Set<String>, averaged: Bool
    ) -> RenamedModule {
        var replacements: [String: String] = [:]
        let all = Set(files.names)
        for name in averaged ? own : [] {
            let average = "model_ema." + name.dropFirst(root.count).filter { $0 != "." }
            if all.contains(average) { replacements[name] = average }
        }
        isAveraged = isAveraged || !replacements.isEmpty
        return RenamedModule(files, prefix: prefix, names: own, replacements: replacements)
    }

    /// The average, loss and discriminator that an autoencoder's checkpoint also has.
    private static func isTrainingState(_ name: String, _ prefix: String) -> Bool {
        ["loss.", "model_ema.", "colorize", "scale_factor"].contains { name.hasPrefix(prefix + $0) }
    }

    // MARK: Settings

    private static func scaleFactor(_ files: WeightFiles, _ names: Set<String>) throws -> Double? {
        guard names.contains("scale_factor"), try files.info(of: "scale_factor").dtype.isFloatingPoint,
            let value = try files.floats(of: "scale_factor").first, value > 0, value.isFinite
        else { return nil }
        return Double(value)
    }

    /// The noise schedule: LDM's "linear" is linear in √β. Its own sampler starts at timestep 1 and ends with
    /// the first ᾱ, as DDIMScheduler does with these keys.
    private mutating func schedule(
        _ files: WeightFiles, _ names: Set<String>, _ settings: OriginalSettings
    ) throws -> SchedulerConfig {
        var (start, end, count) = (settings.linearStart, settings.linearEnd, settings.timesteps)
        if names.contains("betas"), try files.info(of: "betas").dtype.isFloatingPoint {
            let betas = try files.floats(of: "betas").map(Double.init)
            guard let first = betas.first, let last = betas.last, first > 0, last < 1, betas.count >= 2 else {
                throw ModelFolderError(path, "betas are not those of a noise schedule")
            }
            for (index, beta) in betas.enumerated() {
                let share = Double(index) / Double(betas.count - 1)
                let root = first.squareRoot() + share * (last.squareRoot() - first.squareRoot())
                guard abs(root * root - beta) <= 1e-5 * last else {
                    throw ModelFolderError(
                        path,
                        "betas are not linear in their square roots; other schedules cannot be converted")
                }
            }
            (start, end, count) = (start ?? Self.rounded(first), end ?? Self.rounded(last), betas.count)
        } else if start == nil {
            notes.append("no noise schedule in checkpoint or --config: latent-diffusion's defaults")
        }
        return try SchedulerConfig(
            config: ConfigNode(
                [
                    "_class_name": "DDIMScheduler", "num_train_timesteps": .integer(count ?? 1000),
                    "beta_schedule": "scaled_linear", "beta_start": .number(start ?? 0.0015),
                    "beta_end": .number(end ?? 0.0195), "clip_sample": .bool(firstStage == nil),
                    "set_alpha_to_one": false,
                    "steps_offset": 1, "prediction_type": .string(settings.prediction),
                ], source: path), path: [])
    }

    /// Six digits of an fp32 value, such as 0.0015.
    private static func rounded(_ value: Double) -> Double { Double(String(format: "%.6g", value)) ?? value }
}

/// What the original YAML file specifies beyond names and shapes of the weights.
private struct OriginalSettings {
    var isGiven = false
    var headChannels: Int?
    var sampleSize: Int?
    var imageSize: Int?
    var scaleFactor: Double?
    var linearStart: Double?
    var linearEnd: Double?
    var timesteps: Int?
    var prediction = "epsilon"

    init(_ root: ConfigNode?) throws {
        guard let root else { return }
        guard let model = root["model"]?["params"] else {
            throw ConfigError(
                .missingKey, at: ["model", "params"],
                "this key must be given: expected a configuration of latent-diffusion",
                location: root.location)
        }
        isGiven = true
        func read<Value: ConfigValue>(_ node: ConfigNode?, _ path: String...) throws(ConfigError) -> Value? {
            var node = node
            for key in path { node = node?[key] }
            guard let node, node.value != .null else { return nil }
            return try Value(config: node, path: ["model", "params"] + path)
        }
        if let schedule: String = try read(model, "beta_schedule"), schedule != "linear" {
            throw ConfigError(
                .unsupported, at: ["model", "params", "beta_schedule"],
                "found '\(schedule)', expected linear",
                location: model["beta_schedule"]?.location)
        }
        linearStart = try read(model, "linear_start")
        linearEnd = try read(model, "linear_end")
        timesteps = try read(model, "timesteps")
        scaleFactor = try read(model, "scale_factor")
        switch try read(model, "parameterization") ?? "eps" {
        case "eps": break
        case "x0": prediction = "sample"
        case "v": prediction = "v_prediction"
        case let other:
            throw ConfigError(
                .unsupported, at: ["model", "params", "parameterization"],
                "found '\(other)', expected eps, x0 or v", location: model["parameterization"]?.location)
        }
        imageSize = try read(model, "first_stage_config", "params", "ddconfig", "resolution")
        if imageSize == nil { imageSize = try read(model, "ddconfig", "resolution") }
        sampleSize = try read(model, "image_size")
        guard let network = model["unet_config"]?["params"] else { return }
        if sampleSize == nil { sampleSize = try read(network, "image_size") }
        try readHeads(
            try read(network, "num_head_channels"), try read(network, "num_heads"), network,
            isNewOrder: try read(network, "use_new_attention_order") ?? false)
    }

    /// UNet2DModel has heads of the same width in all levels.
    private mutating func readHeads(
        _ width: Int?, _ count: Int?, _ network: ConfigNode, isNewOrder: Bool
    ) throws(ConfigError) {
        let path = ["model", "params", "unet_config", "params"]
        if let width, width > 0 {
            headChannels = width
        } else if let count, count > 1 {
            throw ConfigError(
                .unsupported, at: path + ["num_heads"],
                "found \(count) heads in all levels; a UNet2DModel has heads of the same width instead"
                    + " (num_head_channels)", location: network["num_heads"]?.location)
        }
        if isNewOrder {
            throw ConfigError(
                .unsupported, at: path + ["use_new_attention_order"], "found true, expected false",
                location: network["use_new_attention_order"]?.location)
        }
    }
}
