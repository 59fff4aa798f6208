/// How an average of the weights weighs their past; its name is that of its folder in a checkpoint.
package enum AverageProfile: Sendable, Equatable {
    /// Exponential: each update's weights count `decay` times as much as the next one's. "ema-0.9999".
    case exponential(decay: Double)
    /// A power of the time, whose width is `sigmaRel` of the training so far, however long that is.
    /// "ema-power-0.05". Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
    /// Models", section 3.1.
    case power(sigmaRel: Double)

    private static let powerPrefix = "ema-power-"
    private static let prefix = "ema-"

    package var name: String {
        switch self {
        case .exponential(let decay): "\(Self.prefix)\(decay)"
        case .power(let sigmaRel): "\(Self.powerPrefix)\(sigmaRel)"
        }
    }

    /// nil for the name of anything else.
    package init?(name: String) {
        if name.hasPrefix(Self.powerPrefix), let width = Double(name.dropFirst(Self.powerPrefix.count)) {
            self = .power(sigmaRel: width)
        } else if name.hasPrefix(Self.prefix), let decay = Double(name.dropFirst(Self.prefix.count)) {
            self = .exponential(decay: decay)
        } else {
            return nil
        }
    }

    /// The relative width of a power function; nil for an exponential one.
    package var sigmaRel: Double? {
        if case .power(let sigmaRel) = self { return sigmaRel }
        return nil
    }
}

extension AverageProfile: Comparable {
    /// By slowness: samples are made from the slowest of several averages. A power function is slow at one time and fast
    /// at another; it stands behind every exponential one, so that it changes nothing where it is one more.
    package static func < (a: AverageProfile, b: AverageProfile) -> Bool {
        switch (a, b) {
        case (.exponential(let first), .exponential(let second)), (.power(let first), .power(let second)):
            return first < second
        case (.power, .exponential): return true
        case (.exponential, .power): return false
        }
    }
}
