import Communication
import LDMModel
import TensorCore

/// A first stage with random weights that encodes noise and decodes it; the ranks each take their own batch.
package struct VAEBenchmark {
    package var vae: AutoencoderKLConfig
    /// Of the images, in pixels.
    package var size: SpatialSize
    package var dtype: DType
    package var backend: Backend
    /// Images a rank.
    package var batch: Int
    /// Timed passes each way, 1 or more, after one that warms up.
    package var passes: Int

    package init(
        vae: AutoencoderKLConfig, size: SpatialSize, dtype: DType, backend: Backend, batch: Int, passes: Int
    ) {
        self.vae = vae
        self.size = size
        self.dtype = dtype
        self.backend = backend
        self.batch = batch
        self.passes = passes
    }

    /// Encoding, then decoding: peak memory of the second is that of both. Collective.
    package func run(_ communicator: any Communicator) throws -> [BenchmarkReport] {
        let model = try AutoencoderKL(vae)
        model.store.initialize(seed: 0)
        let stage = FirstStage(.autoencoderKL(model), dtype: dtype, backend: backend)
        let latent = try stage.latentSize(height: size.height, width: size.width)
        let images = noise(batch * size.height * size.width * vae.inChannels)
        let latents = noise(batch * latent.height * latent.width * vae.latentChannels)

        var benchmark = ForwardBenchmark(
            call: "encode", dtype: dtype, backend: backend, batch: batch, count: passes,
            parameters: model.store.parameterCount)
        let encode = try benchmark.run(communicator, profile: stage.takeProfile) {
            _ = try images.withUnsafeBufferPointer {
                try stage.encode($0, batch: batch, height: size.height, width: size.width)
            }
        }
        benchmark.call = "decode"
        let decode = try benchmark.run(communicator, profile: stage.takeProfile) {
            _ = latents.withUnsafeBufferPointer {
                stage.decode($0, batch: batch, height: latent.height, width: latent.width)
            }
        }
        let ceilings = try ArithmeticCeilings.measure(communicator)
        return [encode, decode].map {
            var report = $0
            report.ceilings = ceilings
            return report
        }
    }
}
