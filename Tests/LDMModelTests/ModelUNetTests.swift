import Foundation
import LDMModel
import TensorCore
import Testing

/// A U-Net of a fixture, recorded with its gradients and run once.
private struct RecordedUNet {
    let model: UNet2DModel
    let tape: Tape
    let context: RunContext
    let sample: Tensor
    let output: Tensor
    let gradSample: Tensor?
    /// For each parameter, the instruction after which its gradient is whole.
    let ready: [Int]

    init(
        _ fixture: ModelFixture, _ model: UNet2DModel, dtype: DType = .float32, backend: Backend = .fastest
    ) throws {
        self.model = model
        let (values, shape) = try fixture.nhwc("sample")
        let (seed, seedShape) = try fixture.nhwc("grad_output")
        tape = Tape(dtype: dtype, backend: backend, recordsGradients: true)
        context = RunContext(seed: 7, batch: shape[0])
        sample = tape.input(shape, gradient: true)
        let timestep = tape.input([shape[0]], dtype: .float32)
        output = model(tape, sample: sample, timestep: timestep)
        tape.keep(output)
        let gradOutput = tape.input(seedShape)
        tape.backward(from: [(output, gradOutput)])
        gradSample = tape.gradient(of: sample)
        ready = try model.store.parameters.map { [tape] in try #require(tape.readyAfter($0)) }
        tape.plan()
        sample.write(values)
        timestep.write(try fixture.tensors.integers(of: "timestep").map(Float.init))
        gradOutput.write(seed)
        tape.run(context)
    }
}

@Suite struct ModelUNetTests {
    @Test("fp32 agrees with diffusers", arguments: ModelFixture.names("unet"), backends)
    func golden(name: String, backend: Backend) throws {
        let fixture = try ModelFixture(name)
        let run = try RecordedUNet(fixture, fixture.folder.loadUNet(), backend: backend)
        #expect(relativeError(run.output.readFloats(), try fixture.nhwc("output").values) < 1e-5)
        let gradSample = try #require(run.gradSample).readFloats()
        #expect(relativeError(gradSample, try fixture.nhwc("grad_sample").values) < 1e-4)
        #expect(try wrongGradients(run.model.store, fixture, tolerance: 1e-4) == [])
    }

    @Test("bf16 is near diffusers", arguments: ModelFixture.names("unet"), backends)
    func bfloat16(name: String, backend: Backend) throws {
        let fixture = try ModelFixture(name)
        let run = try RecordedUNet(fixture, fixture.folder.loadUNet(), dtype: .bfloat16, backend: backend)
        #expect(relativeError(run.output.readFloats(), try fixture.nhwc("output").values) < 5e-2)
        #expect(try wrongGradients(run.model.store, fixture, tolerance: 0.15) == [])
    }

    @Test func fixturesCoverTheVariants() {
        #expect(ModelFixture.names("unet").count == 7)
    }

    @Test("gradients become ready from the store's end to its start", arguments: ModelFixture.names("unet"))
    func forwardOrder(name: String) throws {
        let fixture = try ModelFixture(name)
        let run = try RecordedUNet(fixture, fixture.folder.loadUNet())
        for (earlier, later) in zip(run.ready, run.ready.dropFirst()) { #expect(earlier >= later) }
    }

    @Test func microBatchesAddUp() throws {
        let fixture = try ModelFixture("unet_attention")
        let run = try RecordedUNet(fixture, fixture.folder.loadUNet())
        let store = run.model.store
        let once = snapshot(store) { $0.gradient }
        run.context.accumulatesGradients = true
        run.tape.run(run.context)
        for (name, twice) in snapshot(store, { $0.gradient }) {
            #expect(relativeError(twice, (once[name] ?? []).map { 2 * $0 }) < 1e-5, "\(name)")
        }
        run.context.accumulatesGradients = false
        run.tape.run(run.context)
        #expect(snapshot(store, { $0.gradient }) == once)
    }

    @Test func dropoutActsInTrainingAlone() throws {
        let fixture = try ModelFixture("unet_attention")
        guard case .unet(var config) = try fixture.folder.readModelConfig() else {
            Issue.record("not a U-Net")
            return
        }
        config.dropout = 0.3
        let model = try UNet2DModel(config)
        try fixture.folder.loadWeights(into: model.store)
        let run = try RecordedUNet(fixture, model)
        let expected = try fixture.nhwc("output").values
        let first = run.output.readFloats()
        #expect(relativeError(first, expected) > 1e-2)
        run.tape.run(run.context)
        #expect(run.output.readFloats() == first)
        run.context.step = 1
        run.tape.run(run.context)
        #expect(run.output.readFloats() != first)

        let (sample, shape) = try fixture.nhwc("sample")
        let timesteps = try fixture.tensors.integers(of: "timestep").map(Float.init)
        let predicted = Denoiser(model).predict(
            sample, height: shape[1], width: shape[2], timesteps: timesteps)
        #expect(relativeError(predicted, expected) < 1e-5)
    }

    @Test("the denoiser serves shapes in turn", arguments: ModelFixture.names("unet"))
    func denoiser(name: String) throws {
        let fixture = try ModelFixture(name)
        let model = try fixture.folder.loadUNet()
        let denoiser = Denoiser(model, shapes: 1)
        let (sample, shape) = try fixture.nhwc("sample")
        let expected = try fixture.nhwc("output").values
        let timesteps = try fixture.tensors.integers(of: "timestep").map(Float.init)
        for _ in 0..<2 {
            let both = denoiser.predict(sample, height: shape[1], width: shape[2], timesteps: timesteps)
            #expect(relativeError(both, expected) < 1e-5)
            let second = denoiser.predict(
                Array(sample[(sample.count / 2)...]), height: shape[1], width: shape[2],
                timesteps: [timesteps[1]])
            #expect(relativeError(second, Array(expected[(expected.count / 2)...])) < 1e-5)
        }
    }

    @Test func denoiserUsesTheValuesAtHand() throws {
        let fixture = try ModelFixture("unet_attention")
        let model = try fixture.folder.loadUNet()
        let denoiser = Denoiser(model)
        let (sample, shape) = try fixture.nhwc("sample")
        let predict = {
            denoiser.predict(sample, height: shape[1], width: shape[2], timesteps: [3, 871])
        }
        let before = predict()
        let zeros = model.store.makeBuffer()
        defer { zeros.deallocate() }
        #expect(model.store.withValues(zeros, predict).allSatisfy { $0 == 0 })
        #expect(predict() == before)
    }
}
