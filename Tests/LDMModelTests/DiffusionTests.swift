import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// Golden values from diffusers, written by Fixtures/schedules/make_schedules.py.
private func goldens() throws -> JSONValue {
    let path = fixturePath("schedules/schedules.json")
    return try JSONValue(parsing: Array(Data(contentsOf: URL(fileURLWithPath: path)))[...])
}

private func floats(_ value: JSONValue?) throws -> [Float] {
    try #require(value?.arrayValue).map { Float(try #require($0.doubleValue)) }
}

private func expectClose(
    _ found: [Float], _ expected: [Float], tolerance: Float, _ what: String,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(found.count == expected.count, "\(what)", sourceLocation: sourceLocation)
    for (a, b) in zip(found, expected) where !(abs(a - b) <= tolerance * max(1, abs(b))) {
        Issue.record("\(what): found \(a), expected \(b)", sourceLocation: sourceLocation)
        return
    }
}

@Suite struct DiffusionScheduleTests {
    @Test func tablesAgreeWithDiffusers() throws {
        let tables = try #require(goldens()["tables"]?.arrayValue)
        #expect(tables.count == 15)
        for table in tables {
            var config = SchedulerConfig()
            config.betaSchedule = try #require(BetaSchedule(rawValue: table["schedule"]?.stringValue ?? ""))
            config.numTrainTimesteps = try #require(table["T"]?.intValue)
            config.rescaleBetasZeroSNR = try #require(table["zero_snr"]?.boolValue as Bool?)
            if config.rescaleBetasZeroSNR { config.predictionType = .velocity }
            let schedule = try NoiseSchedule(config)
            #expect(schedule.count == config.numTrainTimesteps)
            let indices = try #require(table["indices"]?.arrayValue).map { try #require($0.intValue) }
            let name = "\(config.betaSchedule) T=\(schedule.count) zero=\(config.rescaleBetasZeroSNR)"
            let alphas = indices.map { schedule.alphasCumprod[$0] }
            let error = relativeNorm(alphas, try floats(table["alphas_cumprod"]))
            #expect(error < 1e-6, "\(name) alphas_cumprod")
            // Rescaled β are 1 - α, with cancellation, and PyTorch's vectorized sqrt is not correctly
            // rounded.
            expectClose(
                indices.map { schedule.betas[$0] }, try floats(table["betas"]),
                tolerance: config.rescaleBetasZeroSNR ? 5e-6 : 1e-6, name + " betas")
        }
    }

    @Test func tablesOfLinearSchedulesAreBitForBitThoseOfDiffusers() throws {
        // Each step uses the same precision; only the cosine depends on the C library.
        for table in try #require(goldens()["tables"]?.arrayValue) where table["zero_snr"] == false {
            var config = SchedulerConfig()
            config.betaSchedule = try #require(BetaSchedule(rawValue: table["schedule"]?.stringValue ?? ""))
            if config.betaSchedule == .squaredCosine { continue }
            config.numTrainTimesteps = try #require(table["T"]?.intValue)
            let schedule = try NoiseSchedule(config)
            let indices = try #require(table["indices"]?.arrayValue).map { try #require($0.intValue) }
            let expected = try floats(table["alphas_cumprod"])
            #expect(indices.map { schedule.alphasCumprod[$0] } == expected)
        }
    }

    @Test func timestepsAgreeWithDiffusers() throws {
        let cases = try #require(goldens()["timesteps"]?.arrayValue)
        #expect(cases.count == 60)
        for item in cases {
            var config = SchedulerConfig()
            config.timestepSpacing = try #require(
                TimestepSpacing(rawValue: item["spacing"]?.stringValue ?? ""))
            config.stepsOffset = try #require(item["offset"]?.intValue)
            let steps = try #require(item["steps"]?.intValue)
            let expected = try #require(item["timesteps"]?.arrayValue).map { $0.intValue }
            #expect(
                try NoiseSchedule(config).timesteps(steps: steps) == expected,
                "\(config.timestepSpacing) \(steps)")
        }
    }

    @Test(arguments: [TimestepSpacing.leading, .trailing, .linspace])
    func everyNumberOfStepsGivesValidTimesteps(spacing: TimestepSpacing) throws {
        var config = SchedulerConfig()
        config.numTrainTimesteps = 250
        config.timestepSpacing = spacing
        let schedule = try NoiseSchedule(config)
        for steps in 1...250 {
            let timesteps = try schedule.timesteps(steps: steps)
            #expect(timesteps.count == steps)
            #expect(timesteps.allSatisfy { (0..<250).contains($0) })
            #expect(zip(timesteps, timesteps.dropFirst()).allSatisfy { $0 > $1 })
        }
    }

    @Test func tooManyStepsAreRefused() throws {
        let schedule = try NoiseSchedule(SchedulerConfig())
        for steps in [0, -1, 1001] {
            #expect(throws: ConfigError.self) { try schedule.timesteps(steps: steps) }
        }
        var config = SchedulerConfig()
        config.stepsOffset = 1
        let shifted = try NoiseSchedule(config)
        #expect(throws: ConfigError.self) { try shifted.timesteps(steps: 1000) }
    }

    @Test func noisedSamplesAndVelocityAgreeWithDiffusers() throws {
        let golden = try goldens()
        let (clean, noise) = (try floats(golden["x0"]), try floats(golden["noise"]))
        for item in try #require(golden["noised"]?.arrayValue) {
            var config = SchedulerConfig()
            config.betaSchedule = try #require(BetaSchedule(rawValue: item["schedule"]?.stringValue ?? ""))
            config.predictionType = .velocity
            let schedule = try NoiseSchedule(config)
            let t = try #require(item["t"]?.intValue)
            var noisy = [Float](repeating: .nan, count: clean.count)
            var velocity = noisy
            clean.withUnsafeBufferPointer { clean in
                noise.withUnsafeBufferPointer { noise in
                    noisy.withUnsafeMutableBufferPointer {
                        schedule.addNoise(clean: clean, noise: noise, timestep: t, into: $0)
                    }
                    velocity.withUnsafeMutableBufferPointer {
                        schedule.target(clean: clean, noise: noise, timestep: t, into: $0)
                    }
                }
            }
            expectClose(
                noisy, try floats(item["noisy"]), tolerance: 1e-6, "noisy \(config.betaSchedule) t=\(t)")
            expectClose(
                velocity, try floats(item["velocity"]), tolerance: 1e-6,
                "velocity \(config.betaSchedule) t=\(t)")
        }
    }

    @Test func targetFollowsThePredictionType() throws {
        let (clean, noise): ([Float], [Float]) = ([1, 2], [3, 4])
        for (type, expected) in [(PredictionType.epsilon, noise), (.sample, clean)] {
            var config = SchedulerConfig()
            config.predictionType = type
            let schedule = try NoiseSchedule(config)
            var target: [Float] = [0, 0]
            clean.withUnsafeBufferPointer { clean in
                noise.withUnsafeBufferPointer { noise in
                    target.withUnsafeMutableBufferPointer {
                        schedule.target(clean: clean, noise: noise, timestep: 500, into: $0)
                    }
                }
            }
            #expect(target == expected)
        }
    }

    @Test func minSNRWeights() throws {
        for type in PredictionType.allCases {
            var config = SchedulerConfig()
            config.predictionType = type
            let schedule = try NoiseSchedule(config)
            for t in [0, 100, 400, 999] {
                let alphaBar = Double(schedule.alphasCumprod[t])
                let snr = alphaBar / (1 - alphaBar)
                let expected: Double
                switch type {
                case .epsilon: expected = min(snr, 5) / snr
                case .velocity: expected = min(snr, 5) / (snr + 1)
                case .sample: expected = min(snr, 5)
                }
                #expect(abs(Double(schedule.lossWeight(t, minSNRGamma: 5)) / expected - 1) < 1e-6)
                #expect(schedule.lossWeight(t, minSNRGamma: nil) == 1)
            }
        }
    }

    @Test func zeroTerminalSNREndsInPureNoise() throws {
        var config = SchedulerConfig()
        config.rescaleBetasZeroSNR = true
        #expect(throws: ConfigError.self) { try NoiseSchedule(config) }
        config.predictionType = .velocity
        let schedule = try NoiseSchedule(config)
        #expect(schedule.alphasCumprod[999] == 0)
        #expect(schedule.snr(999) == 0)
        #expect(schedule.lossWeight(999, minSNRGamma: 5) == 0)
        // All weights are finite, whatever is predicted.
        config.predictionType = .sample
        for config in [config, schedule.config] {
            let schedule = try NoiseSchedule(config)
            #expect((0..<1000).allSatisfy { schedule.lossWeight($0, minSNRGamma: 5).isFinite })
        }
    }
}

@Suite struct DiffusionSamplerTests {
    @Test func wholeChainsAgreeWithDiffusers() throws {
        let golden = try goldens()
        let start = try floats(golden["start"])
        let outputs = try #require(golden["outputs"]?.arrayValue).map { try floats($0) }
        let noises = try #require(golden["noises"]?.arrayValue).map { try floats($0) }
        let chains = try #require(golden["chains"]?.arrayValue)
        #expect(chains.count == 162)
        for chain in chains {
            let node = ConfigNode(try #require(chain["config"]))
            let schedule = try NoiseSchedule(SchedulerConfig(config: node))
            let sampler: any DiffusionSampler
            if chain["sampler"] == "ddim" {
                sampler = try DDIMSampler(
                    schedule: schedule, steps: outputs.count, eta: try #require(chain["eta"]?.doubleValue))
            } else {
                sampler = try DDPMSampler(schedule: schedule, steps: outputs.count)
            }
            let results = try #require(chain["results"]?.arrayValue)
            var sample = start
            for index in outputs.indices {
                sampler.step(modelOutput: outputs[index], sample: &sample, index: index) { buffer in
                    for i in buffer.indices { buffer[i] = noises[index][i] }
                }
                expectClose(
                    sample, try floats(results[index]), tolerance: 2e-5,
                    "\(try chain["config"]!.text()) step \(index)")
            }
        }
    }

    @Test func noiseIsDrawnOnlyWhereItIsUsed() throws {
        let schedule = try NoiseSchedule(SchedulerConfig())
        let deterministic = try DDIMSampler(schedule: schedule, steps: 10)
        #expect(!deterministic.needsNoise(at: 0))
        var sample: [Float] = [0.5]
        deterministic.step(modelOutput: [0.1], sample: &sample, index: 0) { _ in
            Issue.record("noise was drawn")
        }
        let ancestral = try DDPMSampler(schedule: schedule, steps: 10)
        #expect(ancestral.needsNoise(at: 0))
        #expect(!ancestral.needsNoise(at: 9))
        #expect(throws: ConfigError.self) { try DDIMSampler(schedule: schedule, steps: 10, eta: 1.5) }
    }

    @Test func aPerfectModelRecoversTheSample() throws {
        // With the true ε at each step, deterministic DDIM must end exactly at x₀.
        var config = SchedulerConfig()
        config.betaSchedule = .squaredCosine
        config.timestepSpacing = .trailing
        let schedule = try NoiseSchedule(config)
        let sampler = try DDIMSampler(schedule: schedule, steps: 50)
        let clean: Float = 0.37
        var sample = [schedule.signalScale(999) * clean + schedule.noiseScale(999) * 0.8]
        for (index, timestep) in sampler.timesteps.enumerated() {
            let t = Int(timestep)
            let epsilon = (sample[0] - schedule.signalScale(t) * clean) / schedule.noiseScale(t)
            sampler.step(modelOutput: [epsilon], sample: &sample, index: index)
        }
        #expect(abs(sample[0] - clean) < 1e-4)
    }

    @Test func aBrokenModelStaysVisible() throws {
        let sampler = try DDIMSampler(schedule: NoiseSchedule(SchedulerConfig()), steps: 10)
        var sample: [Float] = [0.5]
        sampler.step(modelOutput: [.nan], sample: &sample, index: 0)
        #expect(sample[0].isNaN)
    }
}
