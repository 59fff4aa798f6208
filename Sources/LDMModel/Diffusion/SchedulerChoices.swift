import FileFormats

/// How β increases over the training timesteps.
package enum BetaSchedule: String, ConfigChoice {
    case linear
    /// Linear in √β, as in latent diffusion models.
    case scaledLinear = "scaled_linear"
    /// The cosine schedule of Nichol and Dhariwal, with s = 0.008 and β at most 0.999.
    case squaredCosine = "squaredcos_cap_v2"
    /// A sigmoid from -6 to 6, scaled to the range of β; of DDPMScheduler only.
    case sigmoid
}

/// What the model predicts.
package enum PredictionType: String, ConfigChoice {
    /// The noise ε.
    case epsilon
    /// The velocity v = √ᾱ ε - √(1-ᾱ) x₀ (Salimans and Ho 2022).
    case velocity = "v_prediction"
    /// The clean sample x₀.
    case sample
}

/// Which training timesteps a sampler visits (Lin et al. 2023, Table 2).
package enum TimestepSpacing: String, ConfigChoice {
    case leading, trailing, linspace
}

/// The variance of the noise that ancestral sampling adds.
package enum VarianceType: String, ConfigChoice {
    /// The posterior variance β̃.
    case fixedSmall = "fixed_small"
    /// β̃ as well, computed through its logarithm.
    case fixedSmallLog = "fixed_small_log"
    /// β itself.
    case fixedLarge = "fixed_large"

    /// Null, with which DPMSolverMultistepScheduler is written, means that the variance is not learned.
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        switch node.value {
        case .null: self = .fixedSmall
        case .string(let name) where ["learned", "learned_range"].contains(name):
            throw ConfigError(
                .unsupported, at: path,
                "found '\(name)': models that also predict the variance are not supported; expected "
                    + Self.typeName, location: node.location)
        case .string("fixed_large_log"):
            throw ConfigError(
                .unsupported, at: path,
                "found 'fixed_large_log', with which diffusers takes the root of a negative number; use fixed_large",
                location: node.location)
        case .string(let name):
            guard let choice = Self(rawValue: name) else { fallthrough }
            self = choice
        default:
            throw ConfigError(
                .invalidValue, at: path, "found \(node.found), expected \(Self.typeName)",
                location: node.location)
        }
    }
}

/// The equation that DPM-Solver++ solves.
package enum SolverAlgorithm: String, ConfigChoice {
    /// The diffusion ODE: deterministic.
    case ode = "dpmsolver++"
    /// The diffusion SDE, which adds noise at each step.
    case sde = "sde-dpmsolver++"
}

/// Variants of multistep solvers; DPM-Solver++ and UniPC have two each.
package enum SolverType: String, ConfigChoice {
    case midpoint, heun
    /// B(h) = h and B(h) = e^h - 1.
    case bh1, bh2
}

/// The noise level of the result.
package enum FinalSigmas: String, ConfigChoice {
    /// None: the result is a prediction of x₀.
    case zero
    /// That of timestep 0.
    case sigmaMin = "sigma_min"
}

/// How the noise levels between timesteps are computed, in `EulerDiscreteScheduler`.
package enum SigmaInterpolation: String, ConfigChoice {
    case linear
    /// All levels equally spaced in their logarithm.
    case logLinear = "log_linear"
}

/// Timesteps with a smaller λ = ln √(ᾱ/(1-ᾱ)) are skipped; -∞ skips none.
package struct LambdaLimit: ConfigValue, Equatable {
    package var value = -Double.infinity

    package init() {}
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        if case .number(-Double.infinity) = node.value { return }
        value = try Double(config: node, path: path)
    }
    package var node: ConfigNode { .number(value) }
    package static var typeName: String { "a finite number or -Infinity" }
}

/// The diffusers scheduler classes that can be read and written.
package enum SchedulerClass: String, ConfigChoice {
    case ddim = "DDIMScheduler"
    case ddpm = "DDPMScheduler"
    case dpmSolver = "DPMSolverMultistepScheduler"
    case uniPC = "UniPCMultistepScheduler"
    case heun = "HeunDiscreteScheduler"
    case euler = "EulerDiscreteScheduler"
    case eulerAncestral = "EulerAncestralDiscreteScheduler"

    /// Whether the class can clip the predicted x₀.
    var clips: Bool { [.ddim, .ddpm, .heun].contains(self) }
    /// Whether the class remembers several model outputs.
    var isMultistep: Bool { self == .dpmSolver || self == .uniPC }
    var hasKarrasSigmas: Bool { [.dpmSolver, .uniPC, .heun, .euler].contains(self) }
    /// Whether samples have the variance that the model expects: x = √ᾱ x₀ + √(1-ᾱ) ε.
    var preservesVariance: Bool { [.ddim, .ddpm, .dpmSolver, .uniPC].contains(self) }
}
