import LDMModel
import TensorCore
import Testing
import TestSupport

private let stepNames = ["num_inference_steps", "steps"]

extension FixtureCase {
    /// The sampler of the case's scheduler, with its η for DDIM.
    fileprivate func sampler() throws -> any DiffusionSampler {
        try scheduler().sampler(
            steps: try settings.integer(stepNames), eta: try settings.number(["eta"], default: 0))
    }

    /// Runs a sampler's steps with the case's own noise. `output` returns the model's output for a step's input,
    /// and `result` receives its sample.
    ///
    /// - Parameter shape: set if the noise is [B, C, …] and `sample` is [B, …, C]; nil if they have the same
    ///   layout.
    fileprivate func run(
        _ sampler: any DiffusionSampler, _ sample: inout [Float], shape: (batch: Int, channels: Int)? = nil,
        output: (Int, [Float]) throws -> [Float], result: (Int, inout [Float]) throws -> Void
    ) throws {
        let count = sampler.timesteps.count
        var history = SamplerHistory()
        for index in 0..<count {
            var noise: [Float] = []
            if sampler.needsNoise(at: index) {
                noise = try steps(["variance_noise"], count: count).floats(index)
                if let shape {
                    noise = channelsLast(noise, batch: shape.batch, channels: shape.channels)
                }
                guard noise.count == sample.count else {
                    throw FixtureError(
                        path, "'variance_noise' has \(noise.count) values a step, expected \(sample.count)")
                }
            }
            let input = sample.map { sampler.inputScale(at: index) * $0 }
            sampler.step(
                modelOutput: try output(index, input), sample: &sample, index: index, history: &history
            ) { buffer in
                for i in buffer.indices { buffer[i] = noise[i] }
            }
            try result(index, &sample)
        }
    }
}

@Suite struct FixtureSchedulerTests {
    /// The samples before and after each step: from two tensors, or from one with the whole sequence from
    /// noise to sample.
    private func chain(_ fixture: FixtureCase, count: Int) throws -> (
        before: (Int) throws -> [Float], after: (Int) throws -> [Float], elements: Int
    ) {
        let afterNames = ["sample_after", "prev_sample", "sample.after", "next_sample"]
        if let after = try fixture.findSteps(afterNames) {
            let before = try fixture.steps(
                ["sample_before", "sample.before", "sample", "samples"], count: count)
            _ = try fixture.steps(afterNames, count: count)
            return (before.floats, after.floats, before.elements)
        }
        let all = try fixture.steps(["samples", "sample"], count: count + 1)
        return (all.floats, { try all.floats($0 + 1) }, all.elements)
    }

    @Test("tables, timesteps and steps agree with diffusers", arguments: FixtureCase.all(.scheduler))
    func golden(fixture: FixtureCase) throws {
        let sampler = try fixture.sampler()
        let alphas = try fixture.tensor(["alphas_cumprod"]).floats()
        #expect(relativeNorm(sampler.schedule.alphasCumprod, alphas) < 1e-6)
        let timesteps = try fixture.tensor(["timesteps"]).floats()
        try #require(sampler.timesteps.count == timesteps.count)
        // Timesteps of Karras noise levels lie between whole ones.
        #expect(zip(sampler.timesteps, timesteps).allSatisfy { abs($0 - $1) < 1e-3 })

        let count = sampler.timesteps.count
        let chain = try chain(fixture, count: count)
        let outputs = try fixture.steps(
            ["model_output", "model_outputs"], count: count, constant: chain.elements)
        var sample = try chain.before(0)
        try fixture.run(
            sampler, &sample, output: { index, _ in try outputs.floats(index) },
            result: { index, sample in
                let error = relativeNorm(sample, try chain.after(index))
                #expect(error < 1e-5, "step \(index)")
                // Each step starts from diffusers' sample.
                if index + 1 < count { sample = try chain.before(index + 1) }
            })
    }
}

@Suite struct FixtureDDIMTests {
    @Test("a complete sampling run agrees with diffusers", arguments: FixtureCase.all(.ddim), backends)
    func golden(fixture: FixtureCase, backend: Backend) throws {
        let sampler = try fixture.sampler()
        let denoiser = Denoiser(try fixture.model("unet").loadUNet(), backend: backend)
        let noise = try fixture.tensor(["init_noise"]).nhwc()
        let (B, H, W, C) = (noise.shape[0], noise.shape[1], noise.shape[2], noise.shape[3])
        // Optional in a case: the sample after each step.
        let samples = try fixture.findSteps(["samples"])
        var sample = noise.values.map { sampler.initialNoiseScale * $0 }
        try fixture.run(
            sampler, &sample, shape: (B, C),
            output: { index, sample in
                denoiser.predict(
                    sample, height: H, width: W,
                    timesteps: Array(repeating: sampler.timesteps[index], count: B))
            },
            result: { index, sample in
                guard let samples else { return }
                let expected = try samples.floats(index + samples.count - sampler.timesteps.count)
                let error = relativeNorm(sample, channelsLast(expected, batch: B, channels: C))
                try #require(error < 1e-4, "step \(index)")
            })
        #expect(relativeNorm(sample, try fixture.tensor(["sample"]).nhwc().values) < 1e-4)
    }
}
