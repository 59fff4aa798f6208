import Communication
import Configuration
import Imaging
import Records
import Support

/// Illustrations of a model's sampling: a strip of denoising steps, and interpolations between noise vectors.
package struct ModelIllustrations {
    package let configuration: Configuration
    private let model: SamplingModel

    /// Opens the run's newest checkpoint or its final model.
    package init(run: String, _ configuration: Configuration) throws {
        self.configuration = configuration
        model = try SamplingModel(run, weights: nil, firstStage: nil, dtype: configuration.train.dtype)
    }

    /// Draws the illustrations into a folder, which is created.
    ///
    /// - Parameters:
    ///   - step: the step of the weights, if the model does not record it.
    ///   - progress: called with the number of denoising steps since the last call, counted per sample.
    package func draw(into folder: String, step: Int?, progress: @escaping (Int) throws -> Void) throws {
        let pictures = try model.visiblePictures(Communicator())
        var settings = configuration.samplingSettings
        // Use deterministic sampling, since noise added at every step would hide the effect of the initial
        // noise.
        (settings.method, settings.eta) = (.ddim, 0)
        try makeOutputFolder(folder)
        let step = model.folder.step ?? step
        let text = step.map { [(key: "step", value: String($0))] } ?? []
        func write(_ image: Image, _ kind: SamplingPictureKind) throws {
            try image.write(to: "\(folder)/\(kind.fileName)", text: text)
        }
        let strip = try pictures.denoisingStrip(
            Self.stripSamples, moments: Self.frames - 1, settings, progress: progress)
        if let strip { try write(strip, .denoising) }
        // Interpolate between noise vectors within one class.
        if model.unet.config.isConditional { settings.classes.names = ["0"] }
        let images = try pictures.interpolation(
            Self.pairs, frames: Self.frames, settings, progress: progress)
        if let images { try write(ImageGrid(columns: Self.frames).render(images), .interpolation) }
    }

    private static let stripSamples = 3
    private static let frames = 9
    private static let pairs: [(UInt64, UInt64)] = [(0, 1), (2, 3), (4, 5)]

    /// Total number of denoising steps over all samples.
    package var denoisingSteps: Int {
        (Self.stripSamples + Self.pairs.count * Self.frames) * configuration.sampling.steps
    }
}
