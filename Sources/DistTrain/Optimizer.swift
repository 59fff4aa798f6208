import CKernels
import Foundation

/// AdamW (Loshchilov and Hutter, 2019) over a contiguous range of weights, with the arithmetic of torch.optim.AdamW.
package final class AdamW {
    package struct Settings: Sendable {
        package var beta1: Double
        package var beta2: Double
        package var eps: Double
        package var weightDecay: Double

        package init(beta1: Double = 0.9, beta2: Double = 0.999, eps: Double = 1e-8, weightDecay: Double = 0)
        {
            (self.beta1, self.beta2, self.eps, self.weightDecay) = (beta1, beta2, eps, weightDecay)
        }
    }

    package let settings: Settings
    /// Number of weights that it updates.
    package let count: Int
    /// First and second moments.
    package let expAvg: UnsafeMutablePointer<Float>
    package let expAvgSq: UnsafeMutablePointer<Float>

    package init(count: Int, _ settings: Settings) {
        self.count = count
        self.settings = settings
        expAvg = allocateZeros(count)
        expAvgSq = allocateZeros(count)
    }

    deinit {
        expAvg.deallocate()
        expAvgSq.deallocate()
    }

    /// Updates weights from their gradients.
    ///
    /// - Parameters:
    ///   - update: the number of previous updates.
    ///   - learningRate: absolute.
    ///   - gradientScale: a factor that is first applied to the gradients (clipping).
    package func step(
        _ weights: UnsafeMutablePointer<Float>, gradients: UnsafePointer<Float>, update: Int,
        learningRate: Float, gradientScale: Float
    ) {
        let t = Double(update + 1)
        var pass = ck_adamw(
            lr: Double(learningRate), beta1: settings.beta1, beta2: settings.beta2, eps: settings.eps,
            weightDecay: settings.weightDecay, gradientScale: Double(gradientScale),
            biasCorrection1: 1 - pow(settings.beta1, t),
            biasCorrection2: 1 - pow(settings.beta2, t))
        ck_adamw_step(&pass, count, weights, gradients, expAvg, expAvgSq)
    }
}

private func allocateZeros(_ count: Int) -> UnsafeMutablePointer<Float> {
    let values = UnsafeMutablePointer<Float>.allocate(capacity: max(1, count))
    values.initialize(repeating: 0, count: count)
    return values
}

/// Linear warm-up, then constant or a half cosine down to `final`.
package struct LearningRate: Sendable {
    package enum Shape: String, Sendable, CaseIterable { case constant, cosine }

    /// The rate after warm-up. Absolute: it is not scaled with the batch size or the number of ranks.
    package let peak: Float
    package let warmupSteps: Int
    package let shape: Shape
    /// The last step's rate (cosine).
    package let final: Float
    package let totalSteps: Int

    package init(peak: Float, warmupSteps: Int, shape: Shape, final: Float, totalSteps: Int) {
        (self.peak, self.warmupSteps, self.shape) = (peak, warmupSteps, shape)
        (self.final, self.totalSteps) = (final, totalSteps)
    }

    /// The rate of step `step`, counted from 0, as in diffusers' get_scheduler: step/warmup, so the rate of the
    /// first step is 0, then the schedule.
    package func callAsFunction(step: Int) -> Float {
        if step < warmupSteps { return peak * Float(Double(step) / Double(max(1, warmupSteps))) }
        switch shape {
        case .constant: return peak
        case .cosine:
            let progress = Double(step - warmupSteps) / Double(max(1, totalSteps - warmupSteps))
            let half = 0.5 * (1 + cos(.pi * min(1, progress)))
            return final + (peak - final) * Float(half)
        }
    }
}
