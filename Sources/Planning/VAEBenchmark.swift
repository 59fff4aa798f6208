import Communication
import LDMModel
import TensorCore

/// A first stage with random weights that encodes and decodes noise. Each rank has its own batch.
package struct VAEBenchmark {
    package var vae: AutoencoderKLConfig
    /// Image size in pixels.
    package var size: SpatialSize
    package var dtype: DType
    package var backend: Backend
    /// Images per rank.
    package var batch: Int
    /// Number of timed passes in each direction, 1 or more, after one warm-up pass.
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

    /// Runs encoding, then decoding. The peak memory of the second report covers both. Collective.
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
