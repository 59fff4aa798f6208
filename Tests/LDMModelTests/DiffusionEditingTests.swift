import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// Image-to-image and inpainting.
@Suite struct DiffusionEditingTests {
    private func floats(_ value: JSONValue?) throws -> [Float] {
        try #require(value?.arrayValue).map { Float(try #require($0.doubleValue)) }
    }

    /// Golden values from diffusers, written by Fixtures/schedules/make_repaint.py. All training timesteps are
    /// visited, so that adding noise between visited timesteps is one of diffusers' steps.
    @Test func inpaintingAgreesWithDiffusers() throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: fixturePath("schedules/repaint.json")))
        let golden = try JSONValue(parsing: Array(data)[...])
        var config = SchedulerConfig()
        config.numTrainTimesteps = try #require(golden["timesteps"]?.intValue)
        config.betaStart = try #require(golden["beta_start"]?.doubleValue)
        config.betaEnd = try #require(golden["beta_end"]?.doubleValue)
        for item in try #require(golden["cases"]?.arrayValue) {
            config.clipSample = try #require(item["clip"]?.boolValue as Bool?)
            let count = try #require(item["steps"]?.intValue)
            let sampler = try DDIMSampler(
                schedule: NoiseSchedule(config), steps: count, eta: try #require(item["eta"]?.doubleValue))
            let painting = RePaint(
                sampler, jumpLength: try #require(item["jump_length"]?.intValue),
                resampling: try #require(item["jump_n_sample"]?.intValue))
            let moves = try #require(item["moves"]?.arrayValue)
            try #require(painting.moves.count == moves.count)
            let (known, mask) = (try floats(item["known"]), try floats(item["mask"]))
            var sample = try floats(item["start"])
            for (move, expected) in zip(painting.moves, moves) {
                let noise = try floats(expected["noise"])
                switch move {
                case .denoise(let index):
                    #expect(expected["denoise"]?.intValue == count - 1 - index)
                    let output = try floats(expected["output"])
                    denoise(painting, output, &sample, index, known, mask, noise)
                case .renoise(let index):
                    #expect(expected["renoise"]?.intValue == count - 1 - index)
                    sample.withUnsafeMutableBufferPointer { sample in
                        noise.withUnsafeBufferPointer { painting.renoise(sample, index: index, noise: $0) }
                    }
                }
                for (a, b) in zip(sample, try floats(expected["sample"])) {
                    #expect(abs(a - b) < 1e-5 * max(1, abs(b)), "\(move)")
                }
            }
            for i in known.indices where mask[i] == 1 { #expect(sample[i] == known[i]) }
        }
    }

    private func denoise(
        _ painting: RePaint, _ output: [Float], _ sample: inout [Float], _ index: Int, _ known: [Float],
        _ mask: [Float], _ noise: [Float]
    ) {
        output.withUnsafeBufferPointer { output in
            known.withUnsafeBufferPointer { known in
                noise.withUnsafeBufferPointer { noise in
                    sample.withUnsafeMutableBufferPointer {
                        painting.denoise(
                            modelOutput: output, sample: $0, index: index, known: known,
                            isRepainted: { mask[$0] == 0 }, noise: noise)
                    }
                }
            }
        }
    }

    @Test func jumpsFollowThePaper() throws {
        let sampler = try DDIMSampler(schedule: NoiseSchedule(SchedulerConfig()), steps: 6, eta: 1)
        let painting = RePaint(sampler, jumpLength: 2, resampling: 2)
        // Position 0 is index 5.
        #expect(
            painting.moves == [
                .denoise(0), .denoise(1), .denoise(2), .denoise(3), .renoise(3), .renoise(2), .denoise(2),
                .denoise(3), .denoise(4), .denoise(5), .renoise(5), .renoise(4), .denoise(4), .denoise(5),
            ])
        #expect(painting.evaluations == 10)
        #expect(RePaint(sampler, jumpLength: 10, resampling: 10).evaluations == 6)
        #expect(
            RePaint(sampler, first: 4, jumpLength: 10, resampling: 10).moves == [.denoise(4), .denoise(5)])
        #expect(RePaint(sampler, jumpLength: 2, resampling: 1).evaluations == 6)
    }

    /// As `get_timesteps` of diffusers' image-to-image pipelines.
    @Test func theStrengthSelectsTheFirstStep() throws {
        let sampler = try SamplingSettings(method: .ddim, steps: 50).sampler(of: SchedulerConfig())
        #expect(sampler.firstIndex(strength: 0.6) == 20)
        #expect(sampler.firstIndex(strength: 1) == 0)
        #expect(sampler.firstIndex(strength: 0.02) == 49)
        #expect(sampler.firstIndex(strength: 0.019) == nil)
        let heun = try SamplingSettings(method: .heun, steps: 10).sampler(of: SchedulerConfig())
        #expect(heun.firstIndex(strength: 0.6) == 8)
        #expect(heun.firstIndex(strength: 1) == 0)
    }

    @Test(arguments: SamplerKind.allCases)
    func noiseIsAddedAtTheSamplersOwnLevel(kind: SamplerKind) throws {
        let sampler = try SamplingSettings(method: kind, steps: 10).sampler(of: SchedulerConfig())
        let index = 4 * sampler.evaluationsPerStep
        var sample: [Float] = [0.8, -1.1]
        let clean: [Float] = [0.3, 0.5]
        sample.withUnsafeMutableBufferPointer { sample in
            clean.withUnsafeBufferPointer { sampler.addNoise(sample, to: $0, index: index) }
        }
        let alphaBar = sampler.alphaBar(at: index)
        for (found, (clean, noise)) in zip(sample, [(Float(0.3), Float(0.8)), (0.5, -1.1)]) {
            let expected = alphaBar.squareRoot() * clean + (1 - alphaBar).squareRoot() * noise
            #expect(abs(sampler.inputScale(at: index) * found - expected) < 1e-5)
        }
    }

    @Test func onlyTheStepsOfDDPMInpaint() throws {
        let model = SchedulerConfig()
        #expect(try SamplingSettings().inpainting(of: model).eta == 1)
        #expect(try SamplingSettings(method: .ddpm).inpainting(of: model).eta == 1)
        #expect(try SamplingSettings(method: .ddim, eta: 0.25).inpainting(of: model).eta == 0.25)
        #expect(throws: ConfigError.self) { try SamplingSettings(method: .euler).inpainting(of: model) }
        #expect(throws: ConfigError.self) { try SamplingSettings(spacing: .linspace).inpainting(of: model) }
    }
}
