import LDMModel
import TensorCore
import Testing
import TestSupport

/// The U-Net of a fixture, recorded with gradients and run once.
struct RecordedUNet {
    let model: UNet2DModel
    let tape: Tape
    let context: RunContext
    let sample: Tensor
    let output: Tensor
    let gradSample: Tensor?
    /// For each parameter, the instruction after which its gradient is complete.
    let ready: [Int]

    init(
        _ fixture: FixtureCase, _ model: UNet2DModel, dtype: DType = .float32, backend: Backend = .fastest
    ) throws {
        self.model = model
        let (values, shape) = try fixture.tensor(["sample"]).nhwc()
        let (seed, seedShape) = try fixture.tensor(["grad_output"]).nhwc()
        let timesteps = try fixture.timesteps(batch: shape[0])
        tape = Tape(dtype: dtype, backend: backend, recordsGradients: true)
        context = RunContext(seed: 7, batch: shape[0])
        sample = tape.input(shape, gradient: true)
        let timestep = tape.input([shape[0]], dtype: .float32)
        let label = model.config.isConditional ? tape.input([shape[0]], dtype: .float32) : nil
        output = model(tape, sample: sample, timestep: timestep, label: label)
        tape.keep(output)
        let gradOutput = tape.input(seedShape)
        tape.backward(from: [(output, gradOutput)])
        gradSample = tape.gradient(of: sample)
        ready = try model.store.parameters.map { [tape] in try #require(tape.readyAfter($0)) }
        tape.plan()
        sample.write(values)
        timestep.write(timesteps)
        try label?.write(fixture.tensor(["class_labels"]).floats())
        gradOutput.write(seed)
        tape.run(context)
    }
}

extension FixtureCase {
    /// `timestep`, [B]; a single value applies to all samples.
    func timesteps(batch: Int) throws -> [Float] {
        let found = try tensor(["timestep"]).floats()
        if found.count == 1 { return Array(repeating: found[0], count: batch) }
        guard found.count == batch else {
            throw FixtureError(
                path, "'timestep' has \(found.count) values, expected one for each of \(batch) samples")
        }
        return found
    }
}

@Suite struct FixtureUNetTests {
    @Test("fp32 agrees with diffusers", arguments: FixtureCase.all(.unet), backends)
    func golden(fixture: FixtureCase, backend: Backend) throws {
        let run = try RecordedUNet(fixture, fixture.model("unet").loadUNet(), backend: backend)
        #expect(relativeNorm(run.output.readFloats(), try fixture.tensor(["output"]).nhwc().values) < 1e-5)
        let gradSample = try #require(run.gradSample).readFloats()
        #expect(relativeNorm(gradSample, try fixture.tensor(["grad_sample"]).nhwc().values) < 1e-4)
        let wrong = try wrongGradients(run.model.store, fixture, tolerance: 1e-4)
        #expect(wrong == [])
    }

    @Test("bf16 is close to diffusers", arguments: FixtureCase.all(.unet), backends)
    func bfloat16(fixture: FixtureCase, backend: Backend) throws {
        let run = try RecordedUNet(
            fixture, fixture.model("unet").loadUNet(), dtype: .bfloat16, backend: backend)
        #expect(relativeNorm(run.output.readFloats(), try fixture.tensor(["output"]).nhwc().values) < 2e-2)
        let wrong = try wrongGradients(run.model.store, fixture, tolerance: 0.15)
        #expect(wrong == [])
    }

    @Test("the denoiser alternates between shapes", arguments: FixtureCase.all(.unet))
    func denoiser(fixture: FixtureCase) throws {
        let unet = try fixture.model("unet").loadUNet()
        let denoiser = Denoiser(unet, shapes: 1)
        let classes =
            unet.config.isConditional ? try fixture.tensor(["class_labels"]).floats().map { Int($0) } : nil
        let (sample, shape) = try fixture.tensor(["sample"]).nhwc()
        let expected = try fixture.tensor(["output"]).nhwc().values
        let timesteps = try fixture.timesteps(batch: shape[0])
        let last = shape[0] - 1
        for _ in 0..<2 {
            let all = denoiser.predict(
                sample, height: shape[1], width: shape[2], timesteps: timesteps, classes: classes)
            #expect(relativeNorm(all, expected) < 1e-5)
            let one = denoiser.predict(
                Array(sample[(sample.count / shape[0] * last)...]), height: shape[1], width: shape[2],
                timesteps: [timesteps[last]], classes: classes.map { [$0[last]] })
            #expect(relativeNorm(one, Array(expected[(expected.count / shape[0] * last)...])) < 1e-5)
        }
    }
}
