import Communication
import LDMModel
import TensorCore

/// Evaluations of a U-Net on noise, as in sampling. Each rank has its own batch, as in `SampleGenerator`.
package struct SampleBenchmark {
    package var unet: UNet2DConfig
    package var dtype: DType
    package var backend: Backend
    /// Samples per rank.
    package var batch: Int
    /// Number of timed evaluations, 1 or more, after one warm-up evaluation.
    package var evaluations: Int

    package init(unet: UNet2DConfig, dtype: DType, backend: Backend, batch: Int, evaluations: Int) {
        self.unet = unet
        self.dtype = dtype
        self.backend = backend
        self.batch = batch
        self.evaluations = evaluations
    }

    /// Runs the benchmark. Images/s are evaluations/s: of one image, by one model. Collective.
    package func run(_ communicator: any Communicator) throws -> BenchmarkReport {
        let model = try UNet2DModel(unet)
        model.store.initialize(seed: 0)
        let denoiser = Denoiser(model, dtype: dtype, backend: backend)
        let size = unet.timedSize
        let sample = noise(batch * size.height * size.width * unet.inChannels)
        var output = [Float](repeating: 0, count: batch * size.height * size.width * unet.outChannels)
        let timesteps = [Float](repeating: 500, count: batch)

        let benchmark = ForwardBenchmark(
            call: "evaluation", dtype: dtype, backend: backend, batch: batch, count: evaluations,
            parameters: model.store.parameterCount)
        var report = try benchmark.run(communicator, profile: denoiser.takeProfile) {
            sample.withUnsafeBufferPointer { sample in
                output.withUnsafeMutableBufferPointer { output in
                    denoiser.predict(
                        sample, height: size.height, width: size.width, timesteps: timesteps, into: output)
                }
            }
        }
        report.ceilings = try ArithmeticCeilings.measure(communicator)
        return report
    }
}
