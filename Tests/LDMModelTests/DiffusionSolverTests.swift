import FileFormats
import LDMModel
import Support
import Testing

/// Samplers against exact models; `FixtureSchedulerTests` compares each step with diffusers.
@Suite struct DiffusionSolverTests {
    /// The output of a perfect model for x = √ᾱ x₀ + √(1-ᾱ) ε.
    private func output(_ prediction: PredictionType, clean: Float, x: Float, alphaBar: Float) -> Float {
        let (signal, sigma) = (alphaBar.squareRoot(), (1 - alphaBar).squareRoot())
        let epsilon = (x - signal * clean) / sigma
        return switch prediction {
        case .epsilon: epsilon
        case .velocity: signal * epsilon - sigma * clean
        case .sample: clean
        }
    }

    /// Runs a sampler on the model of data with mean `mean` and standard deviation `deviation`.
    ///
    /// - Returns: the final sample, and the number of model evaluations.
    private func run(
        _ sampler: any DiffusionSampler, from noise: Float, mean: Float, deviation: Float = 0, first: Int = 0
    ) -> Float {
        var history = SamplerHistory()
        var sample = [noise]
        for index in first..<sampler.timesteps.count {
            let alphaBar = sampler.alphaBar(at: index)
            let x = sampler.inputScale(at: index) * sample[0]
            // E[x₀ | x] of a normal distribution.
            let variance = alphaBar * deviation * deviation + 1 - alphaBar
            let clean =
                mean + alphaBar.squareRoot() * deviation * deviation / variance
                * (x - alphaBar.squareRoot() * mean)
            let output = output(
                sampler.schedule.config.predictionType, clean: clean, x: x, alphaBar: alphaBar)
            sampler.step(modelOutput: [output], sample: &sample, index: index, history: &history) { buffer in
                for i in buffer.indices { buffer[i] = 0.3 }
            }
        }
        return sample[0]
    }

    @Test(arguments: SamplerKind.allCases, PredictionType.allCases)
    func aPerfectModelRecoversTheSample(kind: SamplerKind, prediction: PredictionType) throws {
        for karras in [false, true] where !karras || kind.hasKarrasSigmas {
            for spacing in TimestepSpacing.allCases {
                var model = SchedulerConfig()
                model.betaSchedule = .scaledLinear
                model.predictionType = prediction
                let settings = SamplingSettings(method: kind, steps: 20, spacing: spacing, karras: karras)
                if kind == .eulerAncestral, prediction == .sample {
                    #expect(throws: ConfigError.self) { try settings.sampler(of: model) }
                    continue
                }
                let sampler = try settings.sampler(of: model)
                let end = run(sampler, from: 0.8 * sampler.initialNoiseScale, mean: 0.37)
                #expect(abs(end - 0.37) < 1e-3, "\(kind) \(prediction) \(spacing) karras \(karras)")
            }
        }
    }

    /// With Karras levels, `final_sigmas_type: sigma_min` repeats the last level; diffusers then yields NaN.
    @Test(arguments: [SchedulerClass.dpmSolver, .uniPC], 1...3)
    func aRepeatedLevelChangesNothing(kind: SchedulerClass, order: Int) throws {
        var config = SchedulerConfig()
        config.schedulerClass = kind
        config.betaSchedule = .scaledLinear
        config.useKarrasSigmas = true
        config.finalSigmas = .sigmaMin
        config.solverOrder = order
        config.lowerOrderFinal = false
        let schedule = try NoiseSchedule(config)
        let sampler: any DiffusionSampler =
            kind == .uniPC
            ? try UniPCSampler(schedule: schedule, steps: 20)
            : try DPMSolverSampler(schedule: schedule, steps: 20)
        // The lowest level still has some noise.
        #expect(abs(run(sampler, from: 0.8, mean: 0.37) - 0.37) < 0.1)
    }

    /// For normally distributed data the ODE has the solution x(λ) = √(ᾱ s² + 1 - ᾱ) ε. Solvers of higher
    /// order approach it in fewer evaluations.
    @Test func higherOrdersAreMoreAccurate() throws {
        var model = SchedulerConfig()
        model.betaSchedule = .scaledLinear
        model.clipSample = false
        func error(_ kind: SamplerKind, steps: Int) throws -> Float {
            let settings = SamplingSettings(method: kind, steps: steps, spacing: .trailing, karras: nil)
            let sampler = try settings.sampler(of: model)
            let alphaBar = sampler.alphaBar(at: 0)
            let start = (alphaBar * 0.25 + 1 - alphaBar).squareRoot() * 1.3
            let end = run(sampler, from: start / sampler.inputScale(at: 0), mean: 0, deviation: 0.5)
            return abs(end - 0.5 * 1.3)
        }
        let first = try error(.dpm1, steps: 20)
        #expect(abs(first - (try error(.ddim, steps: 20))) < 0.3 * first)
        for kind in [SamplerKind.dpm2, .dpm3, .uniPC] {
            #expect(try error(kind, steps: 20) < 0.5 * first, "\(kind)")
        }
        #expect(try error(.heun, steps: 10) < first)
        #expect(try error(.euler, steps: 200) < 0.2 * error(.euler, steps: 20))
    }

    @Test func everyMultistepSamplerCanStartInTheMiddle() throws {
        for kind in SamplerKind.allCases {
            let sampler = try SamplingSettings(method: kind, steps: 10, spacing: .trailing)
                .sampler(of: SchedulerConfig())
            let first = 4 * sampler.evaluationsPerStep
            let alphaBar = sampler.alphaBar(at: first)
            let x = alphaBar.squareRoot() * 0.37 + (1 - alphaBar).squareRoot() * 0.8
            let end = run(sampler, from: x / sampler.inputScale(at: first), mean: 0.37, first: first)
            #expect(abs(end - 0.37) < 1e-3, "\(kind)")
        }
    }

    @Test func theModelsOwnSampler() throws {
        for kind in SamplerKind.allCases {
            let config = SchedulerConfig().with(kind)
            #expect(config.usualSampler == (kind == .ddpm ? .ddim : kind))
            #expect(SamplingSettings().resolved(for: config).method == config.usualSampler)
            // The file determines it, too.
            let read = try SchedulerConfig(config: ConfigNode(JSONValue(parsing: config.jsonText())))
            #expect(read.usualSampler == config.usualSampler)
        }
        #expect(SamplingSettings(method: .euler).resolved(for: SchedulerConfig()).method == .euler)
    }

    @Test func heunEvaluatesTheModelTwice() throws {
        let sampler = try SamplingSettings(method: .heun, steps: 10).sampler(of: SchedulerConfig())
        #expect(sampler.timesteps.count == 19)
        #expect(sampler.timesteps[1] == sampler.timesteps[2] && sampler.timesteps[0] > sampler.timesteps[1])
    }

    @Test func whatASamplerDoesNotSupportIsRefused() throws {
        func refusal(_ settings: SamplingSettings, _ model: SchedulerConfig = SchedulerConfig()) -> String {
            do {
                _ = try settings.sampler(of: model)
                return ""
            } catch {
                return String(describing: error)
            }
        }
        #expect(refusal(.init(method: .ddim, karras: true)).contains("ddim has no Karras noise levels"))
        #expect(refusal(.init(method: .ddim, karras: false)) == "")
        #expect(refusal(.init(method: .eulerAncestral, karras: true)).contains("choose one of dpmpp-1m"))
        #expect(refusal(.init(method: .dpm2, eta: 0.5)).contains("only ddim has an η"))
        // Twice the same timestep has no derivative.
        #expect(refusal(.init(method: .dpm2, steps: 1000)).contains("expected 1 to 999"))
        #expect(refusal(.init(method: .dpm2, steps: 999, spacing: .linspace)) == "")
        #expect(refusal(.init(method: .dpm2, steps: 1000, spacing: .trailing)) == "")
        #expect(refusal(.init(method: .uniPC, steps: 0)).contains("found 0"))
        var rescaled = SchedulerConfig()
        rescaled.predictionType = .velocity
        rescaled.rescaleBetasZeroSNR = true
        #expect(refusal(.init(method: .heun), rescaled).contains("HeunDiscreteScheduler does not support"))
        #expect(refusal(.init(method: .euler), rescaled) == "")
        var short = SchedulerConfig()
        short.numTrainTimesteps = 1
        #expect(refusal(.init(method: .euler, steps: 1, karras: true), short).contains("two timesteps"))
        #expect(refusal(.init(method: .dpm2, steps: 1), short).contains("expected 1 to 0"))
    }

    /// diffusers yields NaN for these.
    @Test func theStepToACleanSampleIsFinite() throws {
        for type in [SolverType.bh1, .bh2] {
            for lowers in [false, true] {
                var config = SchedulerConfig(.uniPC)
                (config.solverType, config.lowerOrderFinal, config.solverOrder) = (type, lowers, 3)
                let sampler = try config.sampler(steps: 8)
                #expect(abs(run(sampler, from: 0.8, mean: 0.37) - 0.37) < 1e-3)
            }
        }
    }

    @Test func aBrokenModelStaysVisible() throws {
        for kind in SamplerKind.allCases {
            let sampler = try SamplingSettings(method: kind, steps: 10).sampler(of: SchedulerConfig())
            var sample: [Float] = [0.5]
            sampler.step(modelOutput: [.nan], sample: &sample, index: 0) { $0.update(repeating: 0) }
            #expect(sample[0].isNaN, "\(kind)")
        }
    }
}
