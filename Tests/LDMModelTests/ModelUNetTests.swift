import Foundation
import LDMModel
import Testing
import TestSupport

@Suite struct ModelUNetTests {
    @Test("gradients complete from the store's end to its start", arguments: FixtureCase.committed(.unet))
    func forwardOrder(fixture: FixtureCase) throws {
        let run = try RecordedUNet(fixture, fixture.model().loadUNet())
        for (earlier, later) in zip(run.ready, run.ready.dropFirst()) { #expect(earlier >= later) }
    }

    @Test func microBatchesAddUp() throws {
        let fixture = try FixtureCase.committed("unet_attention")
        let run = try RecordedUNet(fixture, fixture.model().loadUNet())
        let store = run.model.store
        let once = snapshot(store) { $0.gradient }
        run.context.accumulatesGradients = true
        run.tape.run(run.context)
        for (name, twice) in snapshot(store, { $0.gradient }) {
            #expect(relativeNorm(twice, (once[name] ?? []).map { 2 * $0 }) < 1e-5, "\(name)")
        }
        run.context.accumulatesGradients = false
        run.tape.run(run.context)
        #expect(snapshot(store, { $0.gradient }) == once)
    }

    @Test func dropoutActsInTrainingAlone() throws {
        let fixture = try FixtureCase.committed("unet_attention")
        guard case .unet(var config) = try fixture.model().readModelConfig() else {
            Issue.record("not a U-Net")
            return
        }
        config.dropout = 0.3
        let model = try UNet2DModel(config)
        try fixture.model().loadWeights(into: model.store)
        let run = try RecordedUNet(fixture, model)
        let expected = try fixture.tensor(["output"]).nhwc().values
        let first = run.output.readFloats()
        #expect(relativeNorm(first, expected) > 1e-2)
        run.tape.run(run.context)
        #expect(run.output.readFloats() == first)
        run.context.step = 1
        run.tape.run(run.context)
        #expect(run.output.readFloats() != first)

        let (sample, shape) = try fixture.tensor(["sample"]).nhwc()
        let timesteps = try fixture.timesteps(batch: shape[0])
        let predicted = Denoiser(model).predict(
            sample, height: shape[1], width: shape[2], timesteps: timesteps)
        #expect(relativeNorm(predicted, expected) < 1e-5)
    }

    @Test func denoiserUsesTheValuesAtHand() throws {
        let fixture = try FixtureCase.committed("unet_attention")
        let model = try fixture.model().loadUNet()
        let denoiser = Denoiser(model)
        let (sample, shape) = try fixture.tensor(["sample"]).nhwc()
        let predict = {
            denoiser.predict(sample, height: shape[1], width: shape[2], timesteps: [3, 871])
        }
        let before = predict()
        let values = Array(UnsafeBufferPointer(start: model.store.values, count: model.store.count))
        model.store.values.update(repeating: 0, count: model.store.count)
        model.store.valuesChanged()
        #expect(predict().allSatisfy { $0 == 0 })
        model.store.values.update(from: values, count: model.store.count)
        model.store.valuesChanged()
        #expect(predict() == before)
    }
}
