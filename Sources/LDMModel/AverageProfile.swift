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
