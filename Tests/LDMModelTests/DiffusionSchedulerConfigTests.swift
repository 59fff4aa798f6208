import FileFormats
import LDMModel
import Support
import Testing

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

    @Test func defaultsAreThoseOfDiffusers() throws {
        // inspect.signature(DDIMScheduler.__init__) and DDPMScheduler's of diffusers 0.42, as JSON.
        let common = """
            "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
            "trained_betas": null, "clip_sample": true, "prediction_type": "epsilon", "thresholding": false,
            "dynamic_thresholding_ratio": 0.995, "clip_sample_range": 1.0, "sample_max_value": 1.0,
            "timestep_spacing": "leading", "steps_offset": 0, "rescale_betas_zero_snr": false
            """
        for (name, own) in [
            ("DDIMScheduler", #""set_alpha_to_one": true"#),
            ("DDPMScheduler", #""variance_type": "fixed_small""#),
        ] {
            let full = "{\"_class_name\": \"\(name)\", \(common), \(own)}"
            let config = try decode(full)
            #expect(try config == decode("{\"_class_name\": \"\(name)\"}"))
            let keys = try #require(JSONValue(parsing: full).objectValue).keys.filter { $0 != "_class_name" }
            #expect(Set(config.node.entries?.map(\.key) ?? []) == Set(keys))
        }
    }

    @Test func keysOfOtherSchedulersHaveNoEffect() throws {
        let config = try decode(
            """
            {"_class_name": "DDIMScheduler", "_use_default_values": ["sample_max_value"], "skip_prk_steps": true,
             "algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": false,
             "interpolation_type": "linear", "lower_order_final": true, "steps_offset": 1}
            """)
        #expect(config.stepsOffset == 1)
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

    @Test func writesWhatItReads() throws {
        for className in SchedulerClass.allCases {
            var config = SchedulerConfig()
            config.schedulerClass = className
            config.betaSchedule = .squaredCosine
            config.predictionType = .velocity
            config.rescaleBetasZeroSNR = true
            config.trainedBetas = nil
            let text = try config.jsonText()
            #expect(try decode(text) == config)
            #expect(text.contains("variance_type") == (className == .ddpm))
        }
    }

    @Test(arguments: [
        (#"{"thresholding": true}"#, "thresholding"),
        (#"{"beta_schedul": "linear"}"#, "did you mean 'beta_schedule'?"),
        (#"{"beta_schedule": "sigmoid"}"#, "expected one of linear, scaled_linear, squaredcos_cap_v2"),
        (#"{"variance_type": "learned"}"#, "fixed_small"), (#"{"beta_start": 0.5}"#, "beta_end"),
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
