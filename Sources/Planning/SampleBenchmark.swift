import Communication
import LDMModel
import TensorCore

/// Evaluations of a U-Net as sampling makes them, on noise; the ranks each take their own batch, as
/// `SampleGenerator`'s do.
package struct SampleBenchmark {
    package var unet: UNet2DConfig
    package var dtype: DType
    package var backend: Backend
    /// Samples a rank.
    package var batch: Int
    /// Timed evaluations, 1 or more, after one that warms up.
    package var evaluations: Int

    package init(unet: UNet2DConfig, dtype: DType, backend: Backend, batch: Int, evaluations: Int) {
        self.unet = unet
        self.dtype = dtype
        self.backend = backend
        self.batch = batch
        self.evaluations = evaluations
    }

    /// Images a second are evaluations a second: of one image, by one model. Collective.
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
