import LDMModel
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
