import Communication
import LDMModel
import TensorCore

/// Times forward passes; each rank runs its own. Used for sampling and for the first stage.
struct ForwardBenchmark {
    /// The name of one pass in the report.
    var call: String
    var dtype: DType
    var backend: Backend
    /// Images per rank.
    var batch: Int
    /// Number of timed passes, 1 or more, after one warm-up pass.
    var count: Int
    /// Number of model parameters.
    var parameters: Int

    /// Returns the report without ceilings. Collective.
    ///
    /// - Parameters:
    ///   - profile: returns the profile of the passes since its last call.
    ///   - pass: runs the model once.
    func run(
        _ communicator: Communicator, profile: () -> [WorkProfile], _ pass: () throws -> Void
    ) throws -> BenchmarkReport {
        try pass()
        _ = profile()
        var seconds: [Double] = []
        for _ in 0..<count {
            try communicator.barrier()
            let start = ContinuousClock.now
            try pass()
            seconds.append((ContinuousClock.now - start).seconds)
        }
        let work = profile()
        // A call takes as long as the slowest rank.
        let own = seconds
        try communicator.allReduceMax(&seconds)

        let ranks = communicator.size
        var entries = work.entries(ofEach: count, ranks: ranks)
        let known = entries.reduce(0) { $0 + $1.seconds }
        entries.append(.init("rest", seconds: own.reduce(0, +) / Double(count) - known))
        return BenchmarkReport(
            call: call, precision: dtype.precision, backend: backend.summary, ranks: ranks,
            threads: Processor.threads, batch: batch, parameters: parameters, seconds: seconds,
            flops: work.flops(ofEach: count, ranks: ranks),
            peakRSSMiB: try communicator.allReduceMax(peakResidentMiB()), ceilings: nil,
            entries: entries.filter { $0.seconds >= 0.5e-4 })
    }
}

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
        (self.unet, self.dtype, self.backend) = (unet, dtype, backend)
        (self.batch, self.evaluations) = (batch, evaluations)
    }

    /// Runs the benchmark. Images/s are evaluations/s: of one image, by one model. Collective.
    package func run(_ communicator: Communicator) throws -> BenchmarkReport {
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
        (self.vae, self.size, self.dtype, self.backend) = (vae, size, dtype, backend)
        (self.batch, self.passes) = (batch, passes)
    }

    /// Runs encoding, then decoding. The peak memory of the second report covers both. Collective.
    package func run(_ communicator: Communicator) throws -> [BenchmarkReport] {
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
