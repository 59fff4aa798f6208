import Datasets
import FileFormats
import LDMModel
import TensorCore

// B micro-batch, [H, W, C] a latent (or an image, in pixel space).

/// The source of the denoiser's training samples: clean samples, timesteps and noise.
package protocol DenoisingDraws {
    /// The number of samples to choose from.
    var sampleCount: Int { get }
    /// Shape of a sample: [height, width, channels].
    var height: Int { get }
    var width: Int { get }
    var channels: Int { get }
    /// Writes x₀ and ε of a sample, [H, W, C] each, and returns its timestep t, and the class that a conditional
    /// model is trained with. Throws if data cannot be read.
    func draw(
        _ item: BatchItem, clean: UnsafeMutableBufferPointer<Float>, noise: UnsafeMutableBufferPointer<Float>
    ) throws -> (timestep: Int, label: Int?)
}

/// Samples of a dataset; all random numbers are derived from the keys of the samples.
package struct KeyedDraws: DenoisingDraws {
    let dataset: any TrainingDataset
    let flips: Bool
    /// T: timesteps are drawn uniformly from 0..<T.
    let timesteps: Int
    let labelDropout: LabelDropout?

    package init(
        dataset: any TrainingDataset, flips: Bool, timesteps: Int, labelDropout: LabelDropout? = nil
    ) {
        (self.dataset, self.flips, self.timesteps) = (dataset, flips, timesteps)
        self.labelDropout = labelDropout
    }

    package var sampleCount: Int { dataset.count }
    package var height: Int { dataset.height }
    package var width: Int { dataset.width }
    package var channels: Int { dataset.channels }

    package func draw(
        _ item: BatchItem, clean: UnsafeMutableBufferPointer<Float>, noise: UnsafeMutableBufferPointer<Float>
    ) throws -> (timestep: Int, label: Int?) {
        try dataset.read(item.index, flipped: flips && item.key.isFlipped, key: item.key, into: clean)
        var normal = item.key.random(.noise)
        normal.fillNormal(noise)
        var uniform = item.key.random(.timestep)
        var label = dataset.label(item.index)
        if let labelDropout, labelDropout.drops(item.key) { label = labelDropout.nullClass }
        return (uniform.integer(below: timesteps), label)
    }
}

/// Replaces a share of the labels by the null class, so that one model learns the conditional and the
/// unconditional prediction (Ho and Salimans, 2022, algorithm 1).
package struct LabelDropout: Sendable {
    let probability: Double
    let nullClass: Int

    package init(probability: Double, nullClass: Int) {
        (self.probability, self.nullClass) = (probability, nullClass)
    }

    func drops(_ key: SampleKey) -> Bool {
        var random = key.random(.labelDropout)
        return Double(random.uniform(0, 1)) < probability
    }
}

/// Noise prediction: E ‖target − model(√ᾱ_t·x₀ + √(1−ᾱ_t)·ε, t)‖² with t uniform (Ho et al., 2020, equation 14);
/// the target is ε, or v = √ᾱ_t·ε − √(1−ᾱ_t)·x₀ (Salimans and Ho, 2022).
package final class DenoisingObjective: Objective {
    package let store: ParameterStore
    let unet: UNet2DModel
    let draws: any DenoisingDraws
    let schedule: NoiseSchedule
    /// The weight of the loss at timestep t: 1, or the min-SNR weight.
    let lossWeights: [Float]

    package init(
        unet: UNet2DModel, draws: any DenoisingDraws, schedule: NoiseSchedule, minSNRGamma: Double?
    ) {
        self.unet = unet
        self.store = unet.store
        self.draws = draws
        self.schedule = schedule
        lossWeights = (0..<schedule.count).map { schedule.lossWeight($0, minSNRGamma: minSNRGamma) }
    }

    /// Trains on a dataset, with keyed draws.
    package convenience init(
        unet: UNet2DModel, dataset: any TrainingDataset, schedule: NoiseSchedule, minSNRGamma: Double?,
        flips: Bool, labelDropout: LabelDropout? = nil
    ) {
        self.init(
            unet: unet,
            draws: KeyedDraws(
                dataset: dataset, flips: flips, timesteps: schedule.count, labelDropout: labelDropout),
            schedule: schedule, minSNRGamma: minSNRGamma)
    }

    package var sampleCount: Int { draws.sampleCount }

    package func record(on tape: Tape, batch: Int, globalBatch: Int) -> any RecordedObjective {
        let shape = [batch, draws.height, draws.width, draws.channels]
        let noisy = tape.input(shape)  // x_t [B, H, W, C]
        let timestep = tape.input([batch], dtype: .float32)
        let target = tape.input(shape, dtype: .float32)
        let weight = tape.input([batch], dtype: .float32)
        let label = unet.config.isConditional ? tape.input([batch], dtype: .float32) : nil
        let predicted = unet(tape, sample: noisy, timestep: timestep, label: label)  // [B, H, W, C]
        let loss = tape.error(.squared, predicted, target, weight: weight)
        tape.backward(from: [(loss.output, loss.gradient)])
        return Recorded(
            self, noisy: noisy, timestep: timestep, label: label, target: target, weight: weight,
            sums: loss.sums, globalBatch: globalBatch)
    }

    private final class Recorded: RecordedObjective {
        let objective: DenoisingObjective
        let noisy, timestep, target, weight: Tensor
        let label: Tensor?
        let sums: LossSums
        let globalBatch: Int
        private let clean, noise, mixed: UnsafeMutableBufferPointer<Float>  // [B, H, W, C]

        init(
            _ objective: DenoisingObjective, noisy: Tensor, timestep: Tensor, label: Tensor?, target: Tensor,
            weight: Tensor, sums: LossSums, globalBatch: Int
        ) {
            self.objective = objective
            self.label = label
            (self.noisy, self.timestep, self.target, self.weight) = (noisy, timestep, target, weight)
            self.sums = sums
            self.globalBatch = globalBatch
            clean = .allocate(capacity: noisy.count)
            noise = .allocate(capacity: noisy.count)
            mixed = .allocate(capacity: noisy.count)
        }

        deinit {
            clean.deallocate()
            noise.deallocate()
            mixed.deallocate()
        }

        func load(_ items: [BatchItem]) throws {
            let n = noisy.count / items.count
            let schedule = objective.schedule
            let (target, timestep, weight) = (target.floats, timestep.floats, weight.floats)
            for (b, item) in items.enumerated() {
                func part(_ buffer: UnsafeMutableBufferPointer<Float>) -> UnsafeMutableBufferPointer<Float> {
                    UnsafeMutableBufferPointer(rebasing: buffer[b * n..<(b + 1) * n])
                }
                let (clean, noise) = (part(self.clean), part(self.noise))
                let (t, drawnLabel) = try objective.draws.draw(item, clean: clean, noise: noise)
                label?.floats[b] = Float(drawnLabel ?? 0)
                let (x0, epsilon) = (UnsafeBufferPointer(clean), UnsafeBufferPointer(noise))
                schedule.addNoise(clean: x0, noise: epsilon, timestep: t, into: part(mixed))
                schedule.target(clean: x0, noise: epsilon, timestep: t, into: part(target))
                timestep[b] = Float(t)
                weight[b] = objective.lossWeights[t] / Float(globalBatch * n)
            }
            noisy.write(UnsafeBufferPointer(mixed))
        }

        var loss: Double {
            let weight = weight.floats
            return sums.values.indices.reduce(0) { $0 + sums.values[$1] * Double(weight[$1]) }
        }

        var parts: [(name: String, value: Double)] { [] }
    }
}

extension UNet2DModel {
    /// A model to train: its parameters are ordered so that the slice of each rank contains some of every part.
    package static func forTraining(_ config: UNet2DConfig) throws(ConfigError) -> UNet2DModel {
        let model = try UNet2DModel(config)
        model.store.interleave()
        return model
    }
}
