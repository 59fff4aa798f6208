import Support
import TensorCore

/// The encoder's output for a batch of images.
package struct EncodedImages: Sendable {
    /// Unscaled latents [B, h, w, latent channels]: the mean of the Gaussian, or a VQ model's latents before
    /// quantization.
    package var mean: [Float]
    /// The Gaussian's log-variance, clamped to [-30, 20] as diffusers does; nil for a VQ model.
    package var logVariance: [Float]?
    /// [B, h, w, latent channels]
    package var shape: [Int]
}

/// Why a first stage cannot process images or latents; the message is one line.
package struct FirstStageError: ReportableError, Equatable, Sendable {
    package let message: String
    package var exitStatus: Int32 { ExitStatus.refused }
}

/// The autoencoder of a latent diffusion model, for inference: forward passes only, recorded once per shape,
/// with memory that does not grow with the batch.
///
/// Latents are not scaled here. Diffusion works on `(latent - shiftFactor)·scalingFactor`.
package final class FirstStage {
    /// The kinds of autoencoder.
    package enum Model {
        case autoencoderKL(AutoencoderKL)
        case vqModel(VQModel)

        package var store: ParameterStore {
            switch self {
            case .autoencoderKL(let model): return model.store
            case .vqModel(let model): return model.store
            }
        }
    }

    package let model: Model
    /// Image pixels per latent cell along each side.
    package let downsamplingFactor: Int
    package let latentChannels: Int
    /// Channels of the images.
    package let imageChannels: Int
    package let outputChannels: Int
    /// Initially from the configuration; set it if a diffusion model was trained with another value.
    package var scalingFactor: Float
    package var shiftFactor: Float

    private let dtype: DType
    private let backend: Backend
    private let arena: Arena
    private let pixelsPerPass: Int
    private var encoders: RecentCache<[Int], Pass>
    private var decoders: RecentCache<[Int], Pass>

    private struct Pass {
        let tape: Tape
        let context: RunContext
        let input: Tensor
        let output: Tensor
    }

    /// - Parameters:
    ///   - arena: memory of the activations; sharing one with other tapes saves memory
    ///   - pixelsPerPass: image pixels per pass; a larger batch is processed in several passes. Activations
    ///     take about 3 KB per pixel in fp32 for Stable Diffusion's autoencoder.
    package init(
        _ model: Model, dtype: DType = .float32, backend: Backend = .fastest, arena: Arena = Arena(),
        pixelsPerPass: Int = 1 << 17
    ) {
        (self.model, self.dtype, self.backend) = (model, dtype, backend)
        (self.arena, self.pixelsPerPass) = (arena, pixelsPerPass)
        // One pass of the full size, and one for the remainder.
        encoders = RecentCache(capacity: 2)
        decoders = RecentCache(capacity: 2)
        switch model {
        case .autoencoderKL(let model):
            downsamplingFactor = model.config.downsamplingFactor
            latentChannels = model.config.latentChannels
            (imageChannels, outputChannels) = (model.config.inChannels, model.config.outChannels)
            scalingFactor = Float(model.config.scalingFactor)
            shiftFactor = Float(model.config.shiftFactor ?? 0)
        case .vqModel(let model):
            downsamplingFactor = model.config.downsamplingFactor
            latentChannels = model.config.codebookWidth
            (imageChannels, outputChannels) = (model.config.inChannels, model.config.outChannels)
            scalingFactor = Float(model.config.scalingFactor)
            shiftFactor = 0
        }
    }

    /// Loads a diffusers folder of an AutoencoderKL or a VQModel.
    package convenience init(
        folder: ModelFolder, dtype: DType = .float32, backend: Backend = .fastest, arena: Arena = Arena()
    ) throws {
        self.init(try folder.loadAutoencoder(), dtype: dtype, backend: backend, arena: arena)
    }

    /// The latent's height and width for an image of this size.
    package func latentSize(height: Int, width: Int) throws(FirstStageError) -> (height: Int, width: Int) {
        let f = downsamplingFactor
        guard height > 0, width > 0, height % f == 0, width % f == 0 else {
            throw FirstStageError(
                message:
                    "the first stage takes images whose sides are multiples of \(f), not \(height)×\(width)")
        }
        return (height / f, width / f)
    }

    /// Encodes images.
    ///
    /// - Parameter images: [batch, height, width, imageChannels] in [-1, 1]
    package func encode(
        _ images: UnsafeBufferPointer<Float>, batch: Int, height: Int, width: Int
    ) throws(FirstStageError) -> EncodedImages {
        let (h, w) = try latentSize(height: height, width: width)
        let values = run(
            images, batch: batch, shape: [height, width, imageChannels], pixels: height * width,
            cache: &encoders
        ) { tape, image in
            switch model {
            case .autoencoderKL(let model): return model.encode(tape, image)
            case .vqModel(let model): return model.encode(tape, image)
            }
        }
        let shape = [batch, h, w, latentChannels]
        guard case .autoencoderKL = model else { return EncodedImages(mean: values, shape: shape) }
        let C = latentChannels
        let count = batch * h * w * C
        var mean = [Float](repeating: 0, count: count)
        var logVariance = mean
        for cell in 0..<batch * h * w {
            for c in 0..<C {
                mean[cell * C + c] = values[cell * 2 * C + c]
                logVariance[cell * C + c] = min(max(values[cell * 2 * C + C + c], -30), 20)
            }
        }
        return EncodedImages(mean: mean, logVariance: logVariance, shape: shape)
    }

    /// Decodes latents; a VQ model first quantizes them to their nearest codes.
    ///
    /// - Parameters:
    ///   - latents: [batch, height, width, latentChannels], not scaled
    ///   - height, width: of a latent, in cells
    /// - Returns: images [batch, f·height, f·width, outputChannels], roughly in [-1, 1], not clamped
    package func decode(
        _ latents: UnsafeBufferPointer<Float>, batch: Int, height: Int, width: Int
    ) -> [Float] {
        let pixels = height * width * downsamplingFactor * downsamplingFactor
        return run(
            latents, batch: batch, shape: [height, width, latentChannels], pixels: pixels, cache: &decoders
        ) { tape, latent in
            switch model {
            case .autoencoderKL(let model): return model.decode(tape, latent)
            case .vqModel(let model): return model.decode(tape, latent)
            }
        }
    }

    /// The work of encoding and decoding since the last call, by kind.
    package func takeProfile() -> [WorkProfile] {
        (encoders.values + decoders.values).map(\.tape).takeProfile()
    }

    /// Runs a recorded pass over a batch, with as many samples per pass as `pixelsPerPass` allows.
    private func run(
        _ values: UnsafeBufferPointer<Float>, batch: Int, shape: [Int], pixels: Int,
        cache: inout RecentCache<[Int], Pass>, _ body: (Tape, Tensor) -> Tensor
    ) -> [Float] {
        let perSample = shape.reduce(1, *)
        precondition(values.count == batch * perSample, "\(values.count) values for \([batch] + shape)")
        let most = max(1, pixelsPerPass / pixels)
        var result: [Float] = []
        for start in stride(from: 0, to: batch, by: most) {
            let count = min(most, batch - start)
            let pass = cache.value(for: [count] + shape) { record([count] + shape, body) }
            let part = start * perSample..<(start + count) * perSample
            pass.input.write(UnsafeBufferPointer(rebasing: values[part]))
            pass.tape.run(pass.context)
            result += pass.output.readFloats()
        }
        return result
    }

    private func record(_ shape: [Int], _ body: (Tape, Tensor) -> Tensor) -> Pass {
        let tape = Tape(dtype: dtype, backend: backend, recordsGradients: false, arena: arena)
        let input = tape.input(shape)
        let output = body(tape, input)
        tape.keep(output)
        tape.plan()
        return Pass(tape: tape, context: RunContext(batch: shape[0]), input: input, output: output)
    }
}
