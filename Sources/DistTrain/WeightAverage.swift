import CKernels
import Foundation
import LDMModel

/// A moving average of the weights, used to generate samples.
package final class WeightAverage {
    package struct Settings: Sendable, Equatable {
        package var profile: AverageProfile
        /// For an exponential average: whether the decay starts low and increases to its value.
        package var warmup: Bool

        package init(decay: Double, warmup: Bool) {
            profile = .exponential(decay: decay)
            self.warmup = warmup
        }

        /// A power function, which needs no warm-up because its width grows during training.
        package init(sigmaRel: Double) {
            profile = .power(sigmaRel: sigmaRel)
            warmup = false
        }
    }

    package let settings: Settings
    package let count: Int
    /// The averaged weights.
    package let values: UnsafeMutablePointer<Float>
    /// For a power function, γ + 1.
    private let exponent: Double

    /// Starts from the current weights.
    package init(_ weights: UnsafePointer<Float>, count: Int, _ settings: Settings) {
        self.count = count
        self.settings = settings
        exponent = settings.profile.sigmaRel.map { PowerProfile.gamma(sigmaRel: $0) + 1 } ?? 0
        values = .allocate(capacity: max(1, count))
        values.initialize(from: weights, count: count)
    }

    deinit { values.deallocate() }

    /// The decay of update `update`, counted from 0.
    ///
    /// Exponential: during warm-up min(decay, (1 + n)/(10 + n)), and 0 for the first update, which copies the weights
    /// (diffusers' `EMAModel.get_decay`). Power: (1 − 1/t)^(γ + 1) with t = n + 1, so that θ̂(t) =
    /// Σ θ(s) (s^(γ + 1) − (s − 1)^(γ + 1))/t^(γ + 1) (Karras et al., 2024, equation 2).
    package func decay(update: Int) -> Float {
        switch settings.profile {
        case .exponential(let decay):
            guard settings.warmup else { return Float(decay) }
            let n = Float(update)
            return update == 0 ? 0 : min(Float(decay), (1 + n) / (10 + n))
        case .power:
            return Float(pow(1 - 1 / Double(update + 1), exponent))
        }
    }

    package func step(update: Int, _ weights: UnsafePointer<Float>) {
        ck_ema_update(count, decay(update: update), weights, values)
    }
}
