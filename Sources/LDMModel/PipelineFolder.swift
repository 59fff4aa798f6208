import Foundation
import TensorCore

/// The components of a latent diffusion model for sampling, in a folder of diffusers' layout or elsewhere.
package struct PipelineFolder: Sendable {
    package static let indexFile = PipelineIndex.fileName

    /// The requested path.
    package let path: String
    /// The U-Net's weights and configuration; for a checkpoint, its slowest average.
    package let unet: ModelFolder
    package let unetConfig: UNet2DConfig
    /// nil if the folder does not specify it, as for a bare U-Net.
    package let scheduler: SchedulerConfig?
    /// The autoencoder; nil in pixel space.
    package let firstStage: ModelFolder?
    /// Scaling of latents that the U-Net was trained with, if the folder records it separately from the
    /// autoencoder's own configuration.
    package let firstStageReference: FirstStageReference?
    /// Number of updates; only for a checkpoint.
    package let step: Int?
    /// Replaces the weights in `unet`, unless nil.
    private(set) var mixture: WeightMixture?

    /// - Throws: if `unet` has the configuration of another model.
    package init(
        path: String, unet: ModelFolder, scheduler: SchedulerConfig?, firstStage: ModelFolder?,
        firstStageReference: FirstStageReference? = nil, step: Int? = nil
    ) throws {
        self.path = path
        self.unet = unet
        unetConfig = try unet.readUNetConfig()
        (self.scheduler, self.firstStage) = (scheduler, firstStage)
        (self.firstStageReference, self.step) = (firstStageReference, step)
    }

    /// Opens a diffusers pipeline.
    ///
    /// - Parameters:
    ///   - asked: the path that the user gave.
    ///   - firstStage: the autoencoder's folder, instead of the pipeline's own.
    package init(pipeline folder: String, asked: String, firstStage: ModelFolder? = nil) throws {
        let index = try PipelineIndex(folder)
        try self.init(
            path: asked, unet: try index.unet(), scheduler: try index.scheduler(),
            firstStage: firstStage ?? index.autoencoder)
    }

    /// The same pipeline with other weights for its U-Net.
    package func with(_ mixture: WeightMixture) -> PipelineFolder {
        var pipeline = self
        pipeline.mixture = mixture
        return pipeline
    }

    /// "unet", "ema-0.9999", or the name of a mixture.
    package var weightsName: String { mixture?.name ?? (unet.path as NSString).lastPathComponent }

    /// The U-Net with its weights.
    ///
    /// - Throws: `ModelFolderError`, `ConfigError` or `SafetensorsError`.
    package func loadUNet() throws -> UNet2DModel {
        guard let mixture else { return try unet.loadUNet() }
        let model = try UNet2DModel(unetConfig)
        try WeightSource(mixture, fitting: model.store).load(into: model.store)
        return model
    }

    /// The first stage for decoding, with the scaling that the U-Net was trained with; nil in pixel space.
    package func loadFirstStage(dtype: DType) throws -> FirstStage? {
        guard let firstStage else { return nil }
        let stage = try FirstStage(folder: firstStage, dtype: dtype)
        if let trained = firstStageReference {
            stage.scalingFactor = Float(trained.scalingFactor)
            stage.shiftFactor = Float(trained.shiftFactor)
        }
        return stage
    }

    package static func join(_ folder: String, _ name: String) -> String {
        (folder as NSString).appendingPathComponent(name)
    }

    package static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

    package static func absolute(_ path: String) -> String {
        URL(fileURLWithPath: path).standardizedFileURL.path
    }
}
