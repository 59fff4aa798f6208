import Foundation

/// Linear warm-up, then constant or a half cosine down to `final`.
package struct LearningRate: Sendable {
    package enum Shape: String, Sendable, CaseIterable { case constant, cosine }

    /// The rate after warm-up. Absolute: nothing scales it with the batch or the number of ranks.
    package let peak: Float
    package let warmupSteps: Int
    package let shape: Shape
    /// The last step's rate (cosine).
    package let final: Float
    package let totalSteps: Int

    package init(peak: Float, warmupSteps: Int, shape: Shape, final: Float, totalSteps: Int) {
        self.peak = peak
        self.warmupSteps = warmupSteps
        self.shape = shape
        self.final = final
        self.totalSteps = totalSteps
    }

    /// The rate of step `step`, counted from 0, as diffusers' get_scheduler gives it: step/warmup, so that the very
    /// first step moves nothing, then the schedule.
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
