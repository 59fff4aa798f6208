import CKernels
import Foundation
import Support

extension PipelineFolder {
    /// Writes a folder that diffusers' `DiffusionPipeline.from_pretrained` can load, from the store's current
    /// values.
    ///
    /// In pixel space it is a DDPMPipeline if that pipeline can use the scheduler as it is. A DDIMPipeline
    /// converts any scheduler to DDIM: diffusers has no unconditional pipeline in pixel space that scales a
    /// model's input, as Euler's and Heun's methods require. With a first stage it is an LDMPipeline, whose autoencoder is named `vqvae` regardless of its class: for an
    /// AutoencoderKL, diffusers warns that it expected a VQModel, but works. diffusers has no other pipeline
    /// with a UNet2DModel and an autoencoder.
    ///
    /// The folder is written atomically; an earlier pipeline of that name is replaced.
    ///
    /// - Parameters:
    ///   - values: replace the store's current ones, fp32 in its layout: an average.
    ///   - firstStage: the autoencoder's folder, which is copied; nil in pixel space.
    ///   - trained: scaling of the latents in training, instead of the autoencoder's own.
    /// - Throws: `ModelFolderError`, `SafetensorsError`, `ConfigError` or `FileError`.
    package static func write(
        _ path: String, unet: UNet2DModel, values: UnsafePointer<Float>? = nil, scheduler: SchedulerConfig,
        firstStage: ModelFolder? = nil,
        trained: FirstStageReference? = nil
    ) throws {
        try write(
            path, unet.config, WeightSource(unet.store, values: values), WeightFormat(), scheduler,
            firstStage: firstStage, trained: trained)
    }

    /// Writes this pipeline to a new folder, see `write`, with one tensor of the U-Net in memory at a time.
    ///
    /// - Parameters:
    ///   - format: of the U-Net's weights; an autoencoder's files are copied unchanged.
    ///   - adding: writes further files to the folder before it gets its name.
    package func write(
        to path: String, _ format: WeightFormat = WeightFormat(),
        adding: (_ draft: String) throws -> Void = { _ in }
    ) throws {
        let weights = try WeightSource(
            mixture ?? WeightMixture(of: unet), fitting: UNet2DModel(unetConfig).store)
        try Self.write(
            path, unetConfig, weights, format, scheduler ?? SchedulerConfig(), firstStage: firstStage,
            trained: firstStageReference, adding: adding)
    }

    static func write(
        _ path: String, _ config: UNet2DConfig, _ weights: WeightSource, _ format: WeightFormat,
        _ scheduler: SchedulerConfig, firstStage: ModelFolder?, trained: FirstStageReference?,
        adding: (_ draft: String) throws -> Void = { _ in }
    ) throws {
        try WholeFolder.write(path, replacing: indexFile) { draft in
            try ModelFolder(join(draft, "unet")).save(config, weights, format)
            let schedulerFolder = ModelFolder(join(draft, "scheduler"))
            try schedulerFolder.make()
            try scheduler.write(to: schedulerFolder.file("scheduler_config.json"))

            var index: JSONObject = [
                "_class_name": .string(
                    scheduler.schedulerClass == .ddim || !scheduler.schedulerClass.preservesVariance
                        ? "DDIMPipeline" : "DDPMPipeline")
            ]
            index["scheduler"] = ["diffusers", .string(scheduler.className)]
            index["unet"] = ["diffusers", .string(config.className)]
            if let firstStage {
                index["_class_name"] = "LDMPipeline"
                let className = try firstStage.copyAutoencoder(
                    to: ModelFolder(join(draft, "vqvae")), trained: trained)
                index["vqvae"] = ["diffusers", .string(className)]
            }
            try AtomicFile.write(
                Array((try JSONValue.object(index).text(pretty: true) + "\n").utf8),
                to: join(draft, indexFile))
            try adding(draft)
        }
    }
}

extension PipelineFolder {
    /// Completes or reverts an interrupted write of a model's folder at this path, and removes temporary
    /// files. Only for the single process that may write there.
    package static func recoverInterruptedWrite(at path: String) {
        WholeFolder.recover(path)
        let (parent, name) = (
            (path as NSString).deletingLastPathComponent, (path as NSString).lastPathComponent
        )
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
        where entry.hasPrefix(name + AtomicFile.temporarySuffix) {
            try? FileManager.default.removeItem(atPath: join(parent, entry))
        }
    }
}

extension ModelFolder {
    /// Writes the autoencoder of another folder to this one, with one tensor in memory at a time. The folder
    /// is written atomically; an earlier model of that name is replaced.
    ///
    /// - Parameter mixture: weights that replace those of the other folder.
    package func write(
        autoencoderOf source: ModelFolder, _ format: WeightFormat = WeightFormat(),
        mixture: WeightMixture? = nil
    ) throws {
        let weights = mixture ?? WeightMixture(of: source)
        try WholeFolder.write(path, replacing: Self.configFile) { draft in
            switch try source.readModelConfig() {
            case .unet:
                throw ModelFolderError(source.path, "holds a UNet2DModel, expected an autoencoder")
            case .autoencoderKL(let config):
                let source = try WeightSource(weights, fitting: AutoencoderKL(config).store)
                try ModelFolder(draft).save(config, source, format)
            case .vqModel(let config):
                let source = try WeightSource(weights, fitting: VQModel(config).store)
                try ModelFolder(draft).save(config, source, format)
            }
        }
    }
}

/// Writes folders atomically.
enum WholeFolder {
    /// Assembles a folder next to `path`, and renames it when it is complete.
    ///
    /// - Parameter marker: a file that identifies an earlier folder of this kind; any other folder is not
    ///   replaced.
    static func write(
        _ path: String, replacing marker: String, _ body: (_ draft: String) throws -> Void
    ) throws {
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue {
            throw ModelFolderError(path, "is a file, expected the name of a folder")
        }
        if let entries = try? FileManager.default.contentsOfDirectory(atPath: path), !entries.isEmpty,
            !entries.contains(marker)
        {
            throw ModelFolderError(
                path, "holds other files and no \(marker), expected an empty or new folder")
        }
        recover(PipelineFolder.absolute(path))
        let draft = AtomicFile.temporaryPath(for: PipelineFolder.absolute(path))
        defer { try? FileManager.default.removeItem(atPath: draft) }
        try? FileManager.default.removeItem(atPath: draft)
        try ModelFolder(draft).make()
        try body(draft)
        try replace(PipelineFolder.absolute(path), by: draft)
    }

    /// Renames the finished draft, replacing an existing folder. A crash at any point leaves either the old
    /// or the new folder under the name, or a state that `recover` reverts.
    private static func replace(_ path: String, by draft: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else { return try AtomicFile.commit(draft, to: path) }
        if ck_exchange_names(draft, path) == 0 {
            // The draft's name now refers to the old folder; the caller removes it.
            return try AtomicFile.synchronizeFolder(of: path)
        }
        // Some network file systems do not support exchanging two names.
        guard errno == EINVAL || errno == ENOSYS || errno == ENOTSUP else {
            throw FileError.system(path, "cannot be replaced")
        }
        let old = path + oldSuffix
        try? FileManager.default.removeItem(atPath: old)
        if rename(path, old) != 0 { throw FileError.system(path, "cannot be replaced") }
        do {
            try AtomicFile.commit(draft, to: path)
        } catch {
            rename(old, path)
            throw error
        }
        try? FileManager.default.removeItem(atPath: old)
    }

    private static let oldSuffix = ".replaced"

    /// Restores the old folder after a crash between the two renames, on a file system that cannot exchange
    /// names.
    static func recover(_ path: String) {
        if access(path, F_OK) != 0 { rename(path + oldSuffix, path) }
    }
}
