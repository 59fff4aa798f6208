import CKernels

/// An exponential moving average of the weights; samples are drawn from these.
public final class WeightAverage {
    public struct Settings: Sendable, Equatable {
        /// The decay it approaches.
        public var decay: Double
        public var warmup: Bool

        public init(decay: Double, warmup: Bool) {
            self.decay = decay
            self.warmup = warmup
        }
    }

    public let settings: Settings
    public let count: Int
    /// The averaged weights.
    public let values: UnsafeMutablePointer<Float>

    /// Starts from the present weights.
    public init(_ weights: UnsafePointer<Float>, count: Int, _ settings: Settings) {
        self.count = count
        self.settings = settings
        values = .allocate(capacity: max(1, count))
        values.initialize(from: weights, count: count)
    }

    deinit { values.deallocate() }

    /// The decay of update `update`, counted from 0: while warming up min(decay, (1 + n)/(10 + n)), and 0 at the
    /// very first, which so takes the weights as they are; diffusers' `EMAModel.get_decay`.
    public func decay(update: Int) -> Float {
        let decay = Float(settings.decay)
        guard settings.warmup else { return decay }
        let n = Float(update)
        return update == 0 ? 0 : min(decay, (1 + n) / (10 + n))
    }

    public func step(update: Int, _ weights: UnsafePointer<Float>) {
        ck_ema_update(count, decay(update: update), weights, values)
    }
}
