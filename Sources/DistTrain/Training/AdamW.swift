import CKernels
import Foundation
import TensorCore

/// AdamW (Loshchilov and Hutter, 2019) over the flat parameter store, with the arithmetic of torch.optim.AdamW.
public final class AdamW {
    public struct Settings: Sendable {
        public var beta1: Double
        public var beta2: Double
        public var eps: Double
        public var weightDecay: Double

        public init(beta1: Double = 0.9, beta2: Double = 0.999, eps: Double = 1e-8, weightDecay: Double = 0) {
            self.beta1 = beta1
            self.beta2 = beta2
            self.eps = eps
            self.weightDecay = weightDecay
        }
    }

    public let settings: Settings
    let store: ParameterStore
    /// First and second moments, flat, at the store's offsets.
    public let expAvg: UnsafeMutablePointer<Float>
    public let expAvgSq: UnsafeMutablePointer<Float>

    public init(_ store: ParameterStore, _ settings: Settings) {
        self.store = store
        self.settings = settings
        expAvg = store.makeBuffer()
        expAvgSq = store.makeBuffer()
    }

    deinit {
        expAvg.deallocate()
        expAvgSq.deallocate()
    }

    /// Updates the values from the gradients.
    ///
    /// - Parameters:
    ///   - update: updates made before this one.
    ///   - learningRate: absolute.
    ///   - gradientScale: what gradients are multiplied by first (clipping).
    public func step(update: Int, learningRate: Float, gradientScale: Float) {
        let t = Double(update + 1)
        var pass = ck_adamw(
            lr: Double(learningRate), beta1: settings.beta1, beta2: settings.beta2, eps: settings.eps,
            weightDecay: settings.weightDecay, gradientScale: Double(gradientScale),
            biasCorrection1: 1 - pow(settings.beta1, t),
            biasCorrection2: 1 - pow(settings.beta2, t))
        ck_adamw_step(&pass, store.count, store.values, store.gradients, expAvg, expAvgSq)
        store.valuesChanged()
    }
}

/// Exponential moving averages of the weights; samples are drawn from these.
public final class WeightAverage {
    /// The decay it approaches.
    public let decay: Float
    let warmup: Bool
    let store: ParameterStore
    /// The averaged weights, flat, at the store's offsets.
    public let values: UnsafeMutablePointer<Float>

    /// Starts from the store's present values.
    public init(_ store: ParameterStore, decay: Float, warmup: Bool) {
        self.store = store
        self.decay = decay
        self.warmup = warmup
        values = store.makeBuffer()
        values.update(from: store.values, count: store.count)
    }

    deinit { values.deallocate() }

    /// The decay of update `update`, counted from 0: while warming up min(decay, (1 + n)/(10 + n)), and 0 at the
    /// very first, which so takes the weights as they are; diffusers' `EMAModel.get_decay`.
    public func decay(update: Int) -> Float {
        guard warmup else { return decay }
        let n = Float(update)
        return update == 0 ? 0 : min(decay, (1 + n) / (10 + n))
    }

    public func step(update: Int) { ck_ema_update(store.count, decay(update: update), store.values, values) }
}
