import Foundation

/// How an average of the weights weights their history. Its name is the name of its folder in a checkpoint.
package enum AverageProfile: Sendable, Equatable {
    /// Exponential: the weights of each update count `decay` times as much as those of the following update.
    /// Example name: "ema-0.9999".
    case exponential(decay: Double)
    /// A power function of training time whose width is the fraction `sigmaRel` of the training so far.
    /// Example name: "ema-power-0.05". Source: Karras et al. 2024, "Analyzing and Improving the Training
    /// Dynamics of Diffusion Models", section 3.1.
    case power(sigmaRel: Double)

    private static let powerPrefix = "ema-power-"
    private static let prefix = "ema-"

    package var name: String {
        switch self {
        case .exponential(let decay): "\(Self.prefix)\(decay)"
        case .power(let sigmaRel): "\(Self.powerPrefix)\(sigmaRel)"
        }
    }

    /// nil if the name is not that of an average.
    package init?(name: String) {
        if name.hasPrefix(Self.powerPrefix), let width = Double(name.dropFirst(Self.powerPrefix.count)) {
            self = .power(sigmaRel: width)
        } else if name.hasPrefix(Self.prefix), let decay = Double(name.dropFirst(Self.prefix.count)) {
            self = .exponential(decay: decay)
        } else {
            return nil
        }
    }

    /// The relative width of a power function; nil for an exponential average.
    package var sigmaRel: Double? {
        if case .power(let sigmaRel) = self { return sigmaRel }
        return nil
    }
}

extension AverageProfile: Comparable {
    /// Orders averages by slowness; of several averages, the slowest is used for sampling. The speed of a
    /// power function changes during training; power functions sort below all exponential averages, so that
    /// adding one to a run does not change which average is sampled.
    package static func < (a: AverageProfile, b: AverageProfile) -> Bool {
        switch (a, b) {
        case (.exponential(let first), .exponential(let second)), (.power(let first), .power(let second)):
            return first < second
        case (.power, .exponential): return true
        case (.exponential, .power): return false
        }
    }
}

/// The density of a power-function average over training time: p(τ) = (γ + 1) τ^γ / t^(γ + 1) up to its time
/// t, and 0 after it.
///
/// `WeightAverage` applies it exactly: the weights between the updates s − 1 and s contribute with the
/// integral of p over that step.
///
/// Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section
/// 3.1 and appendix C.
package struct PowerProfile: Sendable, Equatable {
    package let gamma: Double
    /// t, in updates.
    package let step: Double

    package init(sigmaRel: Double, step: Int) {
        gamma = Self.gamma(sigmaRel: sigmaRel)
        self.step = Double(step)
    }

    /// Standard deviation of a profile relative to its time: σ² = (γ + 1)/((γ + 2)² (γ + 3)). It decreases
    /// with γ; γ = 0 is the mean of all weights.
    package static func sigmaRel(gamma: Double) -> Double {
        ((gamma + 1) / (gamma + 3)).squareRoot() / (gamma + 2)
    }

    /// Supremum of the widths of power functions: 1/√12.
    package static let sigmaLimit = sigmaRel(gamma: 0)

    /// The γ > 0 for a width 0 < σ < 1/√12: the largest root of γ³ + 7γ² + (16 − σ⁻²)γ + 12 − σ⁻².
    package static func gamma(sigmaRel: Double) -> Double {
        precondition(sigmaRel > 0 && sigmaRel < sigmaLimit, "width \(sigmaRel)")
        let square = 1 / (sigmaRel * sigmaRel)
        // The cubic is convex from its largest root upwards, and 1/σ is above that root: Newton's method
        // decreases monotonically to it; stop when rounding prevents a further decrease.
        var gamma = 1 / sigmaRel
        while true {
            let value = ((gamma + 7) * gamma + (16 - square)) * gamma + (12 - square)
            let slope = (3 * gamma + 14) * gamma + (16 - square)
            let next = gamma - value / slope
            guard next < gamma else { return gamma }
            gamma = next
        }
    }

    /// ∫ p q dτ of two profiles; appendix C.3.
    package func product(_ other: PowerProfile) -> Double {
        let (early, late) = step < other.step ? (self, other) : (other, self)
        // The product is nonzero up to the earlier time; there the later profile has reached (early.t /
        // late.t)^γ of its height.
        return (gamma + 1) * (other.gamma + 1) * pow(early.step / late.step, late.gamma)
            / ((gamma + other.gamma + 1) * late.step)
    }
}

/// A weighted sum of stored weights, for example an average that was not stored, reconstructed from averages
/// that were.
package struct WeightMixture: Sendable {
    package struct Part: Sendable {
        /// The folder with a model's weights.
        package let folder: ModelFolder
        package let factor: Double

        package init(_ folder: ModelFolder, factor: Double) {
            self.folder = folder
            self.factor = factor
        }
    }

    /// The name of the sum.
    package let name: String
    package let parts: [Part]

    package init(name: String, parts: [Part]) {
        self.name = name
        self.parts = parts
    }

    /// A folder's weights, unchanged.
    init(of folder: ModelFolder) {
        self.init(name: folder.path, parts: [Part(folder, factor: 1)])
    }
}
