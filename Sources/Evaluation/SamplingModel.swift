import Communication
import LDMModel
import Support
import TensorCore

/// A trained model ready for sampling: U-Net, scheduler and first stage.
package struct SamplingModel {
    /// The path as the user gave it.
    let path: String
    let folder: PipelineFolder
    let unet: UNet2DModel
    let scheduler: SchedulerConfig
    let firstStage: FirstStage?
    private let dtype: DType

    /// Opens a run, a checkpoint, a pipeline or a bare U-Net. Not collective; each rank opens it
    /// independently.
    ///
    /// - Parameters:
    ///   - weights: the weights to use from a checkpoint, "unet", "ema-0.9999" or "sigma-rel-0.08"; nil: the
    ///     slowest average.
    ///   - firstStage: the autoencoder's folder, which replaces the one that the model refers to.
    ///   - note: called with one line that describes how weights were reconstructed that are not stored in a
    ///     file.
    package init(
        _ path: String, weights: String?, firstStage: String?, dtype: DType,
        note: (String) -> Void = { _ in }
    ) throws {
        self.path = path
        self.dtype = dtype
        folder = try PipelineFolder.open(path, weights: weights, firstStage: firstStage, note: note)
        unet = try folder.loadUNet()
        let (input, output) = (unet.config.inChannels, unet.config.outChannels)
        guard input == output else {
            throw RunError(
                "\(folder.unet.path): predicts \(output) channels from \(input), expected equal numbers "
                    + "(no learned variances)",
                exitStatus: ExitStatus.refused)
        }
        scheduler = folder.scheduler ?? SchedulerConfig()
        self.firstStage = try folder.openFirstStage(dtype: dtype, isGiven: firstStage != nil)
    }

    /// A generator for samples of the given size; nil: the size that the model was trained on.
    func pictures(size: SpatialSize? = nil, _ communicator: Communicator) throws -> SamplePictures {
        guard let size = size ?? unet.config.sampleSize else {
            throw RunError(
                "\(path): config.json has no sample_size; specify --init-noise",
                exitStatus: ExitStatus.refused)
        }
        return SamplePictures(
            SampleGenerator(
                Denoiser(unet, dtype: dtype), scheduler: scheduler, height: size.height, width: size.width),
            firstStage: firstStage, communicator: communicator)
    }

    /// The same, but throws if the samples cannot be displayed.
    func visiblePictures(size: SpatialSize? = nil, _ communicator: Communicator) throws -> SamplePictures {
        let pictures = try pictures(size: size, communicator)
        guard pictures.areVisible else {
            throw RunError(
                "\(path): samples have \(unet.config.inChannels) channels, and there is no first stage to decode "
                    + "them; specify --first-stage, or --dump-latents for latents only",
                exitStatus: ExitStatus.refused)
        }
        return pictures
    }
}
