import Foundation

extension PipelineFolder {
    /// Writes a folder that diffusers' `DiffusionPipeline.from_pretrained` opens, from the store's present values.
    ///
    /// In pixel space it is a DDIMPipeline (or DDPMPipeline, after the scheduler's class). Behind a first stage it is
    /// an LDMPipeline, whose autoencoder is called `vqvae` whatever its class: with an AutoencoderKL diffusers says
    /// that it expected a VQModel, and works. LDMPipeline divides latents by the autoencoder's `scaling_factor`, so the
    /// copied configuration carries the one that was trained with.
    ///
    /// The folder is there whole or not at all; an earlier pipeline of that name is replaced.
    ///
    /// - Parameters:
    ///   - firstStage: the autoencoder's folder, which is copied; nil in pixel space.
    ///   - scalingFactor: in place of the autoencoder's own.
    /// - Throws: `ModelFolderError`, `SafetensorsError`, `ConfigError` or `FileError`.
    public static func write(
        _ path: String, unet: UNet2DModel, scheduler: SchedulerConfig, firstStage: String? = nil,
        scalingFactor: Double? = nil
    ) throws {
        if let entries = try? FileManager.default.contentsOfDirectory(atPath: path), !entries.isEmpty,
            !exists(join(path, indexFile))
        {
            throw ModelFolderError(path, "holds other files and no pipeline, expected an empty or new folder")
        }
        let draft = AtomicFile.temporaryPath(for: path)
        defer { try? FileManager.default.removeItem(atPath: draft) }
        try? FileManager.default.removeItem(atPath: draft)
        try makeFolder(draft)
        try ModelFolder(join(draft, "unet")).save(unet.config, unet.store)
        try makeFolder(join(draft, "scheduler"))
        try scheduler.write(to: join(draft, "scheduler/scheduler_config.json"))

        var index: JSONObject = [
            "_class_name": .string(scheduler.schedulerClass == .ddpm ? "DDPMPipeline" : "DDIMPipeline")
        ]
        index["scheduler"] = ["diffusers", .string(scheduler.className)]
        index["unet"] = ["diffusers", .string(unet.config.className)]
        if let firstStage {
            index["_class_name"] = "LDMPipeline"
            let source = try locateAutoencoder(firstStage)
            let className = try copyAutoencoder(
                source, to: join(draft, "vqvae"), scalingFactor: scalingFactor)
            index["vqvae"] = ["diffusers", .string(className)]
        }
        try AtomicFile.write(
            Array((try JSONValue.object(index).text(pretty: true) + "\n").utf8), to: join(draft, indexFile))
        try replace(path, by: draft)
    }

    /// Copies weights byte for byte, and the configuration with its scaling.
    ///
    /// - Returns: the autoencoder's class.
    private static func copyAutoencoder(
        _ source: ModelFolder, to folder: String, scalingFactor: Double?
    ) throws -> String {
        try makeFolder(folder)
        let className: String
        switch try source.readModelConfig() {
        case .unet:
            throw ModelFolderError(source.path, "holds a UNet2DModel, expected an AutoencoderKL or a VQModel")
        case .autoencoderKL(var config):
            if let scalingFactor { config.scalingFactor = scalingFactor }
            className = config.className
            try config.write(to: join(folder, ModelFolder.configFile))
        case .vqModel(var config):
            if let scalingFactor { config.scalingFactor = scalingFactor }
            className = config.className
            try config.write(to: join(folder, ModelFolder.configFile))
        }
        let weights = try WeightFiles(path: source.path)
        // One file may have any name; shards are named by their index.
        let names =
            weights.files.count == 1
            ? [ModelFolder.weightsFile] : weights.files.map { ($0.path as NSString).lastPathComponent }
        var map: [String: String] = [:]
        for (file, name) in zip(weights.files, names) {
            // The cache of a model hub is made of links.
            let original = URL(fileURLWithPath: file.path).resolvingSymlinksInPath().path
            do {
                try FileManager.default.copyItem(atPath: original, toPath: join(folder, name))
            } catch {
                throw ModelFolderError(
                    original, "cannot be copied to \(folder): \(error.localizedDescription)")
            }
            for tensor in file.names { map[tensor] = name }
        }
        if names.count > 1 {
            let bytes = try weights.names.reduce(0) { try $0 + weights.info(of: $1).byteRange.count }
            try SafetensorsIndex(weightMap: map, totalSize: bytes)
                .write(to: join(folder, ModelFolder.weightsFile + ".index.json"))
        }
        return className
    }

    private static func makeFolder(_ path: String) throws(ModelFolderError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw ModelFolderError(path, "cannot be created: \(error.localizedDescription)")
        }
    }

    /// Gives the finished draft its name, in place of what had it.
    private static func replace(_ path: String, by draft: String) throws {
        let old = draft + ".old"
        try? FileManager.default.removeItem(atPath: old)
        if rename(path, old) != 0, errno != ENOENT { throw FileError.system(path, "cannot be replaced") }
        do {
            try AtomicFile.commit(draft, to: path)
        } catch {
            rename(old, path)
            throw error
        }
        try? FileManager.default.removeItem(atPath: old)
    }
}
