import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

@Suite struct DiffusionInversionTests {
    /// Golden values from diffusers, written by Fixtures/schedules/make_inversion.py.
    @Test func stepsAgreeWithDiffusers() throws {
        let path = fixturePath("schedules/inversion.json")
        let json = try JSONValue(parsing: Array(Data(contentsOf: URL(fileURLWithPath: path)))[...])
        let cases = try #require(json.arrayValue)
        #expect(cases.count == 72)
        for item in cases {
            var config = SchedulerConfig()
            config.betaSchedule = try #require(BetaSchedule(rawValue: item["schedule"]?.stringValue ?? ""))
            config.timestepSpacing = try #require(
                TimestepSpacing(rawValue: item["spacing"]?.stringValue ?? ""))
            config.predictionType = try #require(
                PredictionType(rawValue: item["prediction"]?.stringValue ?? ""))
            config.stepsOffset = try #require(item["offset"]?.intValue)
            config.setAlphaToOne = try #require(item["to_one"]?.boolValue as Bool?)
            config.clipSample = try #require(item["clip"]?.boolValue as Bool?)
            let timesteps = try #require(item["timesteps"]?.arrayValue).compactMap(\.intValue)
            let inversion = try DDIMInversion(schedule: NoiseSchedule(config), steps: timesteps.count)
            let name =
                "\(config.betaSchedule) \(config.timestepSpacing) \(config.predictionType) \(config.clipSample)"
            #expect(inversion.timesteps == timesteps.map(Float.init), "\(name)")
            var sample = try floats(item["sample"])
            let outputs = try #require(item["outputs"]?.arrayValue)
            let trajectory = try #require(item["trajectory"]?.arrayValue)
            for index in timesteps.indices {
                inversion.step(modelOutput: try floats(outputs[index]), sample: &sample, index: index)
                for (found, expected) in zip(sample, try floats(trajectory[index])) {
                    #expect(abs(found - expected) <= 2e-5 * max(1, abs(expected)), "\(name), step \(index)")
                }
            }
        }
    }

    /// For normally distributed data with standard deviation s, the optimal prediction is ε = σ x / (ᾱ s² +
    /// σ²). With it, a round trip to noise and back returns to the start, with an error that decreases with
    /// the step size.
    @Test(arguments: [BetaSchedule.linear, .squaredCosine], [TimestepSpacing.leading, .trailing])
    func aRoundTripEndsWhereItBeganAsStepsGrow(betas: BetaSchedule, spacing: TimestepSpacing) throws {
        var config = SchedulerConfig()
        config.betaSchedule = betas
        config.timestepSpacing = spacing
        config.clipSample = false
        let schedule = try NoiseSchedule(config)
        let deviation: Float = 0.5
        func output(_ x: [Float], _ t: Int) -> [Float] {
            let (signal, sigma) = (schedule.signalScale(t), schedule.noiseScale(t))
            return x.map { sigma * $0 / (signal * signal * deviation * deviation + sigma * sigma) }
        }
        func run(_ sampler: any DiffusionSampler, _ x: inout [Float]) {
            for (index, t) in sampler.timesteps.enumerated() {
                sampler.step(modelOutput: output(x, Int(t)), sample: &x, index: index)
            }
        }
        var errors: [Float] = []
        for steps in [10, 50, 250] {
            let start: [Float] = [-0.9, -0.2, 0.4, 0.7]
            var x = start
            run(try DDIMInversion(schedule: schedule, steps: steps), &x)
            // Data with standard deviation s has become noise with standard deviation 1.
            #expect(abs(x[0] / start[0] - 1 / deviation) < 0.5)
            run(try DDIMSampler(schedule: schedule, steps: steps), &x)
            errors.append(abs(x[0] - start[0]) / abs(start[0]))
        }
        #expect(errors[1] < 0.5 * errors[0] && errors[2] < 0.5 * errors[1] && errors[2] < 0.03, "\(errors)")
    }

    @Test func whatCannotBeInvertedIsRefused() throws {
        var config = SchedulerConfig()
        config.timestepSpacing = .linspace
        let linspace = try NoiseSchedule(config)
        #expect(throws: ConfigError.self) { try DDIMInversion(schedule: linspace, steps: 10) }
        config.timestepSpacing = .leading
        config.predictionType = .sample
        let sample = try NoiseSchedule(config)
        #expect(throws: ConfigError.self) { try DDIMInversion(schedule: sample, steps: 10) }
    }

    @Test func theCleanEstimateGivesBackWhatNoiseWasAddedTo() throws {
        var config = SchedulerConfig()
        config.clipSample = false
        for prediction in [PredictionType.epsilon, .velocity, .sample] {
            config.predictionType = prediction
            let schedule = try NoiseSchedule(config)
            let sampler = try DDIMSampler(schedule: schedule, steps: 10)
            let (clean, noise): ([Float], [Float]) = ([0.3, -0.7, 0.1], [1.2, -0.4, 0.8])
            let t = Int(sampler.timesteps[4])
            var (noisy, target) = (clean, clean)
            clean.withUnsafeBufferPointer { clean in
                noise.withUnsafeBufferPointer { noise in
                    noisy.withUnsafeMutableBufferPointer {
                        schedule.addNoise(clean: clean, noise: noise, timestep: t, into: $0)
                    }
                    target.withUnsafeMutableBufferPointer {
                        schedule.target(clean: clean, noise: noise, timestep: t, into: $0)
                    }
                }
            }
            let found = target.withUnsafeBufferPointer { output in
                noisy.withUnsafeBufferPointer {
                    sampler.cleanEstimate(modelOutput: output, sample: $0, index: 4)
                }
            }
            for (a, b) in zip(found, clean) { #expect(abs(a - b) < 1e-5) }
        }
    }

    private func floats(_ value: JSONValue?) throws -> [Float] {
        try #require(value?.arrayValue).map { Float(try #require($0.doubleValue)) }
    }
}
