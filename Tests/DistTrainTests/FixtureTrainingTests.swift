import Communication
import DistTrain
import LDMModel
import TensorCore
import Testing
import TestSupport

/// The random numbers that PyTorch drew at each step, instead of those derived from keys.
private struct RecordedDraws: DenoisingDraws {
    let latents: FixtureSteps  // [B, C, H, W] per step
    let noises: FixtureSteps
    let timesteps: FixtureSteps  // [B] per step

    var batch: Int { latents.shape[0] }
    var sampleCount: Int { latents.count * batch }
    var channels: Int { latents.shape[1] }
    var height: Int { latents.shape[2] }
    var width: Int { latents.shape[3] }

    init(_ fixture: FixtureCase) throws {
        guard let latents = try fixture.findSteps(["latent", "latents"]) else {
            throw fixture.missing(["latent"])
        }
        self.latents = latents
        noises = try fixture.steps(["noise", "noises"], count: latents.count)
        timesteps = try fixture.steps(["timestep", "timesteps"], count: latents.count)
        guard latents.shape.count == 4, noises.shape == latents.shape,
            timesteps.elements == 1 || timesteps.elements == batch
        else {
            throw FixtureError(
                fixture.path,
                "latent, noise and timestep are \(latents.shape), \(noises.shape) and \(timesteps.shape) a step, "
                    + "expected [B, C, H, W] twice and [B]")
        }
    }

    func draw(
        _ item: BatchItem, clean: UnsafeMutableBufferPointer<Float>, noise: UnsafeMutableBufferPointer<Float>
    ) throws -> (timestep: Int, label: Int?) {
        let (step, sample) = (Int(item.key.step), Int(item.key.sample))
        for (source, destination) in [(latents, clean), (noises, noise)] {
            let values = channelsLast(try source.floats(step), batch: batch, channels: channels)
            let size = destination.count
            _ = destination.update(fromContentsOf: values[sample * size..<(sample + 1) * size])
        }
        let t = try timesteps.integers(step)
        return (t.count == 1 ? t[0] : t[sample], nil)
    }
}

extension FixtureSettings {
    fileprivate func learningRate(steps: Int) throws -> LearningRate {
        let names = ["lr_schedule", "lr_scheduler", "lr_scheduler_type", "schedule"]
        let found = try choice(names, default: "constant")
        let shapes: [String: LearningRate.Shape] = [
            "constant": .constant, "constant_with_warmup": .constant, "cosine": .cosine,
        ]
        guard let shape = shapes[found] else {
            throw FixtureError(
                file, "lr_schedule is '\(found)', expected \(shapes.keys.sorted().joined(separator: ", "))")
        }
        return LearningRate(
            peak: Float(try number(["learning_rate", "lr", "peak_lr", "base_lr"])),
            warmupSteps: try integer(["warmup_steps", "lr_warmup_steps", "num_warmup_steps"], default: 0),
            shape: shape, final: Float(try number(["final_lr", "min_lr", "eta_min"], default: 0)),
            totalSteps: try integer(
                ["total_steps", "num_training_steps", "max_train_steps", "steps", "num_steps"], default: steps
            ))
    }

    /// Settings that the case lacks have the defaults of torch.optim.AdamW.
    fileprivate func adamW() throws -> AdamW.Settings {
        let betas =
            try numbers(["betas", "adam_betas"]) ?? [
                try number(["beta1", "adam_beta1"], default: 0.9),
                try number(["beta2", "adam_beta2"], default: 0.999),
            ]
        guard betas.count == 2 else { throw FixtureError(file, "betas are \(betas), expected two") }
        return AdamW.Settings(
            beta1: betas[0], beta2: betas[1],
            eps: try number(["eps", "adam_epsilon", "adam_eps"], default: 1e-8),
            weightDecay: try number(["weight_decay", "adam_weight_decay"], default: 0.01))
    }
}

/// Trains a case with the program's own training step.
private struct RecordedTraining {
    let steps: Int
    let model: UNet2DModel
    let state: ModelState
    let step: TrainingStep

    init(_ fixture: FixtureCase, backend: Backend) throws {
        let settings = fixture.settings
        let draws = try RecordedDraws(fixture)
        steps = draws.latents.count
        model = try fixture.model("unet").loadUNet()
        let average = try settings.number(optional: ["ema_decay", "decay"]).map {
            WeightAverage.Settings(
                decay: $0, warmup: try settings.bool(["ema_warmup", "use_ema_warmup"], default: false))
        }
        state = ModelState(
            model.store,
            ModelState.Settings(optimizer: try settings.adamW(), averages: average.map { [$0] } ?? []),
            Communicator())
        step = TrainingStep(
            TrainingStep.Settings(
                seed: 0, batchSize: draws.batch, microBatchSize: nil, backend: backend,
                clipNorm: try settings.number(
                    optional: ["clip_norm", "max_grad_norm", "clip_grad_norm", "max_norm"]
                ).map(Float.init)),
            objective: DenoisingObjective(
                unet: model, draws: draws, schedule: try NoiseSchedule(fixture.scheduler()),
                minSNRGamma: try settings.number(optional: ["min_snr_gamma", "snr_gamma"])),
            state: state, learningRate: try settings.learningRate(steps: steps), communicator: Communicator()
        )
    }

    /// Parameters whose gradient consists only of rounding errors, such as a key's bias, which softmax cancels:
    /// AdamW scales it to full steps, so the result is random, also in PyTorch.
    var driftingParameters: Set<String> {
        func gradient(_ parameter: Parameter) -> Double {
            let squares = UnsafeBufferPointer(
                start: state.optimizer.expAvgSq + parameter.offset, count: parameter.values.count)
            return (squares.reduce(0.0) { $0 + Double($1) } / Double(squares.count)).squareRoot()
        }
        let largest = model.store.parameters.map(gradient).max() ?? 0
        return Set(model.store.parameters.filter { gradient($0) < 1e-5 * largest }.map(\.name))
    }

    /// ‖a − b‖ / ‖b‖ over all parameters except the drifting ones.
    func error(of values: UnsafePointer<Float>, _ fixture: FixtureCase, _ prefix: String) throws -> Double {
        let drifting = driftingParameters
        var (found, expected): ([Float], [Float]) = ([], [])
        for parameter in model.store.parameters where !drifting.contains(parameter.name) {
            let golden = try fixture.tensor(["\(prefix).\(parameter.name)"])
            found += UnsafeBufferPointer(start: values + parameter.offset, count: parameter.values.count)
            expected += try golden.floats()
        }
        return relativeNorm(found, expected)
    }
}

@Suite struct FixtureTrainingTests {
    @Test(
        "training follows PyTorch step by step", arguments: FixtureCase.all(.training),
        Backend.allCases.filter(\.isAvailable))
    func trajectory(fixture: FixtureCase, backend: Backend) throws {
        let training = try RecordedTraining(fixture, backend: backend)
        let count = training.steps
        let losses = try fixture.requiredTrace(["loss", "losses"], count: count)
        let norms = try fixture.requiredTrace(
            ["grad_norm", "gradient_norm", "grad_norms", "gradient_norms"], count: count)
        let rates = try fixture.trace(["learning_rates", "lrs", "lr"], count: count)

        for step in 0..<count {
            let result = try training.step(step)
            let (loss, norm) = (
                abs(result.loss / losses[step] - 1), abs(result.gradientNorm / norms[step] - 1)
            )
            // Stop at the first wrong step, since the following errors are consequences of it.
            try #require(loss <= 1e-4, "loss of step \(step): \(result.loss), expected \(losses[step])")
            try #require(
                norm <= 1e-4, "gradient norm of step \(step): \(result.gradientNorm), expected \(norms[step])"
            )
            if let rate = rates?[step] {
                let error = abs(Double(result.learningRate) - rate)
                try #require(
                    error <= 1e-6 * rate, "rate of step \(step): \(result.learningRate), expected \(rate)")
            }
        }
        let weights = try training.error(of: training.model.store.values, fixture, "param")
        #expect(weights < 1e-3)
        if let average = training.state.averages.first {
            let averaged = try training.error(of: average.values, fixture, "ema")
            #expect(averaged < 1e-3)
        } else {
            #expect(!fixture.tensorNames.contains { $0.hasPrefix("ema.") }, "case.json tells no ema_decay")
        }
    }
}
