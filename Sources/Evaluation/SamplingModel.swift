import Communication
import LDMModel
import Support
import TensorCore

/// A trained model that is ready to draw from: U-Net, scheduler and first stage.
package struct SamplingModel {
    /// What was asked for.
    let path: String
    let folder: PipelineFolder
    let unet: UNet2DModel
    let scheduler: SchedulerConfig
    let firstStage: FirstStage?
    private let dtype: DType

    /// Opens a run, a checkpoint, a pipeline or a bare U-Net. On every rank by itself.
    ///
    /// - Parameters:
    ///   - weights: of a checkpoint in place of the slowest average, "unet", "ema-0.9999" or "sigma-rel-0.08".
    ///   - firstStage: the autoencoder's folder in place of the one that the model names.
    ///   - note: told, in a line, how weights were made that are in no file.
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
                "\(folder.unet.path): predicts \(output) channels of \(input), expected as many (no learned variances)",
                exitStatus: ExitStatus.refused)
        }
        scheduler = folder.scheduler ?? SchedulerConfig()
        self.firstStage = try folder.openFirstStage(dtype: dtype, isGiven: firstStage != nil)
    }

    /// What draws samples of a size, as large as those that the model was trained on unless told otherwise.
    func pictures(size: SpatialSize? = nil, _ communicator: any Communicator) throws -> SamplePictures {
        guard let size = size ?? unet.config.sampleSize else {
            throw RunError(
                "\(path): config.json has no sample_size; give --init-noise", exitStatus: ExitStatus.refused)
        }
        return SamplePictures(
            SampleGenerator(
                Denoiser(unet, dtype: dtype), scheduler: scheduler, height: size.height, width: size.width),
            firstStage: firstStage, communicator: communicator)
    }

    /// The same, for what is shown.
    func visiblePictures(size: SpatialSize? = nil, _ communicator: any Communicator) throws -> SamplePictures
    {
        let pictures = try pictures(size: size, communicator)
        guard pictures.areVisible else {
            throw RunError(
                "\(path): samples of \(unet.config.inChannels) channels and no first stage, which are no pictures; "
                    + "give --first-stage, or --dump-latents for the latents alone",
                exitStatus: ExitStatus.refused)
        }
        return pictures
    }
}
