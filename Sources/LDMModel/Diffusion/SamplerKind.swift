import FileFormats

/// The samplers, as `--sampler` and `sampling.sampler` name them.
package enum SamplerKind: String, ConfigChoice {
    case ddim, ddpm
    /// DPM-Solver++ of order 1 to 3, without and with added noise.
    case dpm1 = "dpmpp-1m"
    case dpm2 = "dpmpp-2m"
    case dpm3 = "dpmpp-3m"
    case dpm1SDE = "dpmpp-1m-sde"
    case dpm2SDE = "dpmpp-2m-sde"
    case dpm3SDE = "dpmpp-3m-sde"
    case uniPC = "unipc"
    case heun, euler
    case eulerAncestral = "euler-a"

    /// The class in the scheduler_config.json of a model that is sampled with it.
    package var schedulerClass: SchedulerClass {
        switch self {
        case .ddim: .ddim
        case .ddpm: .ddpm
        case .dpm1, .dpm2, .dpm3, .dpm1SDE, .dpm2SDE, .dpm3SDE: .dpmSolver
        case .uniPC: .uniPC
        case .heun: .heun
        case .euler: .euler
        case .eulerAncestral: .eulerAncestral
        }
    }

    /// Whether a sample depends only on its initial noise; for DDIM, if η is 0.
    package var isDeterministic: Bool {
        ![.ddpm, .dpm1SDE, .dpm2SDE, .dpm3SDE, .eulerAncestral].contains(self)
    }

    package var hasKarrasSigmas: Bool { schedulerClass.hasKarrasSigmas }

    /// Algorithm and order of DPM-Solver++.
    fileprivate var solver: (SolverAlgorithm, order: Int)? {
        switch self {
        case .dpm1: (.ode, 1)
        case .dpm2: (.ode, 2)
        case .dpm3: (.ode, 3)
        case .dpm1SDE: (.sde, 1)
        case .dpm2SDE: (.sde, 2)
        case .dpm3SDE: (.sde, 3)
        default: nil
        }
    }
}

extension SchedulerConfig {
    /// The sampler of this scheduler if the user chooses none. That of a DDPMScheduler is DDIM, which needs
    /// far fewer steps for the same model.
    package var usualSampler: SamplerKind {
        switch schedulerClass {
        case .ddim, .ddpm: .ddim
        case .uniPC: .uniPC
        case .heun: .heun
        case .euler: .euler
        case .eulerAncestral: .eulerAncestral
        case .dpmSolver:
            SamplerKind.allCases.first { $0.solver.map { $0 == (algorithmType, solverOrder) } ?? false }
                ?? .dpm2
        }
    }

    /// This model's scheduler for another sampler, as diffusers' `from_config` creates it: what the sampler
    /// does not determine is retained.
    package func with(_ sampler: SamplerKind) -> SchedulerConfig {
        var config = self
        config.schedulerClass = sampler.schedulerClass
        if let (algorithm, order) = sampler.solver {
            (config.algorithmType, config.solverOrder) = (algorithm, order)
        }
        config.replaceForeignSolverType()
        return config
    }

    /// The sampler of this scheduler's class.
    ///
    /// - Parameter eta: η of DDIM; the others have none.
    /// - Throws: `ConfigError` if the class does not support the configuration or the number of steps.
    package func sampler(steps: Int, eta: Double = 0) throws(ConfigError) -> any DiffusionSampler {
        var config = self
        if !schedulerClass.clips { config.clipSample = false }
        let schedule = try NoiseSchedule(config)
        return switch schedulerClass {
        case .ddim: try DDIMSampler(schedule: schedule, steps: steps, eta: eta)
        case .ddpm: try DDPMSampler(schedule: schedule, steps: steps)
        case .dpmSolver: try DPMSolverSampler(schedule: schedule, steps: steps)
        case .uniPC: try UniPCSampler(schedule: schedule, steps: steps)
        case .heun: try HeunSampler(schedule: schedule, steps: steps)
        case .euler, .eulerAncestral: try EulerSampler(schedule: schedule, steps: steps)
        }
    }
}

/// Settings for drawing samples.
package struct SamplingSettings: Sendable {
    /// nil: the scheduler's `usualSampler`; see `resolved`.
    package var method: SamplerKind?
    /// Denoising steps.
    package var steps: Int
    /// η of DDIM: 0 is deterministic, 1 adds as much noise as DDPM.
    package var eta: Double
    /// Overrides the scheduler's `timestep_spacing` unless nil.
    package var spacing: TimestepSpacing?
    /// Overrides the scheduler's `use_karras_sigmas` unless nil.
    package var karras: Bool?
    /// Seed of the initial noise: sample i of a seed is the same image on any number of ranks.
    package var seed: UInt64
    /// One seed per sample instead of `seed`: each sample is then the first sample of its seed.
    package var seeds: [UInt64]?
    /// Samples per denoising batch on a rank.
    package var batchSize: Int
    /// Overrides the scheduler's `clip_sample` unless nil.
    package var clips: Bool?
    /// Classes and guidance of a class-conditional model.
    package var classes = ClassRequest()

    package init(
        method: SamplerKind? = nil, steps: Int = 50, eta: Double = 0, spacing: TimestepSpacing? = nil,
        karras: Bool? = nil, seed: UInt64 = 0, seeds: [UInt64]? = nil, batchSize: Int = 16,
        clips: Bool? = nil
    ) {
        (self.seeds, self.clips, self.method, self.steps) = (seeds, clips, method, steps)
        (self.eta, self.spacing, self.seed, self.batchSize) = (eta, spacing, seed, batchSize)
        self.karras = karras
    }

    /// The key of a sample's noise: seed and sample number.
    package func key(of sample: Int) -> (seed: UInt64, sample: UInt64) {
        seeds.map { ($0[sample], 0) } ?? (seed, UInt64(sample))
    }

    /// Whether samples depend only on their initial noise; for resolved settings.
    package var isDeterministic: Bool { method?.isDeterministic == true && eta == 0 }

    /// The same settings with the sampler that they imply for a model.
    package func resolved(for scheduler: SchedulerConfig) -> SamplingSettings {
        var settings = self
        settings.method = method ?? scheduler.usualSampler
        return settings
    }

    /// A model's scheduler, changed as these settings require.
    ///
    /// - Throws: `ConfigError` if the sampler does not support a setting.
    package func scheduler(of model: SchedulerConfig) throws(ConfigError) -> SchedulerConfig {
        let method = method ?? model.usualSampler
        var config = model.with(method)
        guard eta == 0 || [.ddim, .ddpm].contains(method) else {
            throw ConfigError(
                .invalidValue, at: ["eta"], "found \(eta), but only ddim has an η, not \(method.rawValue)")
        }
        if let karras {
            guard !karras || method.hasKarrasSigmas else {
                let others = SamplerKind.allCases.filter(\.hasKarrasSigmas).map(\.rawValue)
                throw ConfigError(
                    .unsupported, at: ["karras"],
                    "\(method.rawValue) has no Karras noise levels; choose one of "
                        + others.joined(separator: ", "))
            }
            config.useKarrasSigmas = karras
        }
        if let spacing { config.timestepSpacing = spacing }
        if let clips { config.clipSample = clips }
        return config
    }

    /// The sampler of DDPM in the form in which `RePaint` uses it: DDIM with η = 1, or with this η if DDIM is
    /// chosen explicitly.
    ///
    /// - Throws: `ConfigError` for other samplers, and for linspace spacing, whose timesteps are not
    ///   equidistant.
    package func inpainting(of model: SchedulerConfig) throws(ConfigError) -> DDIMSampler {
        guard method == nil || method == .ddim || method == .ddpm else {
            throw ConfigError(
                .unsupported, at: ["sampler"],
                "found \(method?.rawValue ?? ""), but inpainting requires ddpm or ddim")
        }
        var settings = self
        settings.method = .ddim
        let schedule = try NoiseSchedule(settings.scheduler(of: model))
        guard schedule.config.timestepSpacing != .linspace else {
            throw ConfigError(
                .unsupported, at: ["timestep_spacing"],
                "is linspace, but inpainting requires leading or trailing")
        }
        return try DDIMSampler(schedule: schedule, steps: steps, eta: inpaintingEta)
    }

    /// η of `inpainting`.
    package var inpaintingEta: Double { method == .ddim ? eta : 1 }

    /// The sampler for a model.
    package func sampler(of model: SchedulerConfig) throws(ConfigError) -> any DiffusionSampler {
        try scheduler(of: model).sampler(steps: steps, eta: eta)
    }
}
