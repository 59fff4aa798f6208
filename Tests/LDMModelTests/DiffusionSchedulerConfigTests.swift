import FileFormats
import LDMModel
import Support
import Testing
import TestSupport

@Suite struct DiffusionSchedulerConfigTests {
    private func decode(_ json: String) throws -> SchedulerConfig {
        try SchedulerConfig(config: ConfigNode(JSONValue(parsing: json)))
    }

    @Test func readsTheFilesOfWellKnownModels() throws {
        let cifar = try decode(
            """
            {"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02,
             "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true,
             "num_train_timesteps": 1000,
             "trained_betas": null, "variance_type": "fixed_large"}
            """)
        #expect(cifar.schedulerClass == .ddpm)
        #expect(cifar.varianceType == .fixedLarge)
        let latent = try decode(
            """
            {"_class_name": "DDIMScheduler", "beta_end": 0.0195, "beta_schedule": "scaled_linear",
             "beta_start": 0.0015, "clip_sample": false, "timestep_values": null, "trained_betas": null}
            """)
        #expect(latent.betaSchedule == .scaledLinear)
        #expect(!latent.clipSample)
        #expect(latent.setAlphaToOne)
    }

    /// The defaults of diffusers 0.42, as `save_pretrained` writes them, except keys that are only noted.
    @Test(arguments: SchedulerClass.allCases)
    func defaultsAreThoseOfDiffusers(schedulerClass: SchedulerClass) throws {
        let path = fixturePath("schedules/defaults/\(schedulerClass.rawValue).json")
        let file = try ConfigNode(jsonFile: path)
        let config = try SchedulerConfig(config: file)
        #expect(config == SchedulerConfig(schedulerClass))
        #expect(config == (try decode("{\"_class_name\": \"\(schedulerClass.rawValue)\"}")))
        let keys = (file.entries ?? []).map(\.key).filter { !$0.hasPrefix("_") }
        let written = Set(config.node.entries?.map(\.key) ?? [])
        // Omitted at their default.
        #expect(Set(keys).subtracting(written).isSubset(of: ["lambda_min_clipped", "variance_type"]))
        #expect(written.isSubset(of: keys))
    }

    @Test func keysOfOtherSchedulersHaveNoEffect() throws {
        let config = try decode(
            """
            {"_class_name": "DDIMScheduler", "_use_default_values": ["sample_max_value"], "skip_prk_steps": true,
             "solver_order": 2, "use_karras_sigmas": false,
             "interpolation_type": "linear", "lower_order_final": true, "use_beta_sigmas": true,
             "algorithm_type": "dpmsolver", "steps_offset": 1}
            """)
        #expect(config.stepsOffset == 1)
        #expect(config.node["algorithm_type"] == nil)
        // They take effect with the sampler that has them.
        let solver = try decode(
            #"{"_class_name": "UniPCMultistepScheduler", "euler_at_final": true, "clip_sample": true, "solver_order": 3}"#
        )
        #expect(solver.usualSampler == .uniPC)
        let other = solver.with(.dpm2)
        #expect(other.eulerAtFinal && other.solverOrder == 2 && other.solverType == .midpoint)
        #expect(other.usualSampler == .dpm2)
        #expect(solver.with(.ddim).clipSample)
    }

    @Test func noiseDifferences() {
        var (here, there) = (SchedulerConfig(), SchedulerConfig())
        there.schedulerClass = .ddpm
        there.clipSample = false
        there.timestepSpacing = .trailing
        there.stepsOffset = 1
        #expect(here.noiseDifferences(from: there) == [])
        there.predictionType = .velocity
        there.betaEnd = 0.012
        #expect(
            here.noiseDifferences(from: there) == [
                "beta_end is 0.02, there 0.012", #"prediction_type is "epsilon", there "v_prediction""#,
            ])
        (here.betaSchedule, there.betaSchedule) = (.squaredCosine, .squaredCosine)
        #expect(here.noiseDifferences(from: there).count == 1)
    }

    /// Only DDPMScheduler has the sigmoid schedule.
    @Test func otherClassesReadTheSigmoidScheduleFromItsBetas() throws {
        var config = SchedulerConfig(.ddpm)
        config.betaSchedule = .sigmoid
        #expect(config.withBetasWrittenOut == config)
        let other = config.with(.dpm2).withBetasWrittenOut
        #expect(other.trainedBetas?.count == 1000)
        #expect(try decode(other.jsonText()).trainedBetas == other.trainedBetas)
        #expect(try NoiseSchedule(other).alphasCumprod == NoiseSchedule(config).alphasCumprod)
        #expect(config.noiseDifferences(from: other) == [])
        var third = other
        third.trainedBetas?[3] = 0.5
        #expect(config.noiseDifferences(from: third).count == 1)
    }

    @Test func writesWhatItReads() throws {
        for className in SchedulerClass.allCases {
            var config = SchedulerConfig(className)
            config.betaSchedule = .squaredCosine
            config.predictionType = .velocity
            config.rescaleBetasZeroSNR = className != .heun
            config.trainedBetas = nil
            let text = try config.jsonText()
            #expect(try decode(text) == config)
            #expect(text.contains("variance_type") == (className == .ddpm))
        }
    }

    @Test(arguments: [
        (#"{"thresholding": true}"#, "thresholding"),
        (#"{"beta_schedul": "linear"}"#, "did you mean 'beta_schedule'?"),
        (
            #"{"beta_schedule": "laplace"}"#,
            "expected one of linear, scaled_linear, squaredcos_cap_v2, sigmoid"
        ),
        (#"{"variance_type": "learned"}"#, "models that also predict the variance are not supported"),
        (#"{"variance_type": "learned_range"}"#, "fixed_small"),
        (#"{"variance_type": "fixed_large_log"}"#, "use fixed_large"),
        (#"{"variance_type": "fixed"}"#, "expected one of fixed_small"),
        (#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#, "dpmsolver++"),
        (#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}"#, "expected 1 to 3"),
        (#"{"_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": true}"#, "use_lu_lambdas"),
        (#"{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true}"#, "flow matching"),
        (#"{"_class_name": "UniPCMultistepScheduler", "predict_x0": false}"#, "sigma_min"),
        (#"{"_class_name": "UniPCMultistepScheduler", "solver_p": {}}"#, "solver_p"),
        (#"{"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}"#, "'discrete'"),
        (
            #"{"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"}"#,
            "another sampler"
        ),
        (
            #"{"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "sigma_min": 2, "sigma_max": 1}"#,
            "expected less than sigma_max"
        ), (#"{"beta_start": 0.5}"#, "beta_end"),
        (#"{"trained_betas": [0.1]}"#, "num_train_timesteps"),
        (#"{"_class_name": "PNDMScheduler"}"#, "DDIMScheduler"),
        (#"{"num_train_timesteps": 1.5}"#, "expected a whole number"),
        (#"{"num_train_timesteps": 0}"#, "found 0"),
    ])
    func refuses(json: String, hint: String) throws {
        let error = try #require(throws: ConfigError.self) { try decode(json) }
        #expect(error.description.contains(hint), "\(error)")
        #expect(!error.description.contains("\n"))
    }
}
