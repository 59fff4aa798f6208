import LDMModel
import TensorCore

// B micro-batch, [H, W, C] a latent (or an image, in pixel space).

/// Noise prediction: E ‖target − model(√ᾱ_t·x₀ + √(1−ᾱ_t)·ε, t)‖² with t uniform (Ho et al., 2020, equation 14);
/// the target is ε, or v = √ᾱ_t·ε − √(1−ᾱ_t)·x₀ (Salimans and Ho, 2022).
public final class DenoisingObjective: Objective {
    public let store: ParameterStore
    let unet: UNet2DModel
    let dataset: any TrainingDataset
    let schedule: NoiseSchedule
    let flips: Bool
    /// Weight of timestep t's loss: 1, or min-SNR's.
    let lossWeights: [Float]

    public init(
        unet: UNet2DModel, dataset: any TrainingDataset, schedule: NoiseSchedule, minSNRGamma: Double?,
        flips: Bool
    ) {
        self.unet = unet
        self.store = unet.store
        self.dataset = dataset
        self.schedule = schedule
        lossWeights = (0..<schedule.count).map { schedule.lossWeight($0, minSNRGamma: minSNRGamma) }
        self.flips = flips
    }

    public var sampleCount: Int { dataset.count }

    public func record(on tape: Tape, batch: Int, globalBatch: Int) -> any RecordedObjective {
        let shape = [batch, dataset.height, dataset.width, dataset.channels]
        let noisy = tape.input(shape)  // x_t [B, H, W, C]
        let timestep = tape.input([batch], dtype: .float32)
        let target = tape.input(shape, dtype: .float32)
        let weight = tape.input([batch], dtype: .float32)
        let predicted = unet(tape, sample: noisy, timestep: timestep)  // [B, H, W, C]
        let loss = tape.error(.squared, predicted, target, weight: weight)
        tape.backward(from: [(loss.output, loss.gradient)])
        return Recorded(
            self, noisy: noisy, timestep: timestep, target: target, weight: weight, sums: loss.sums,
            globalBatch: globalBatch)
    }

    private final class Recorded: RecordedObjective {
        let objective: DenoisingObjective
        let noisy, timestep, target, weight: Tensor
        let sums: LossSums
        let globalBatch: Int
        private let clean, noise, mixed: UnsafeMutableBufferPointer<Float>  // [B, H, W, C]

        init(
            _ objective: DenoisingObjective, noisy: Tensor, timestep: Tensor, target: Tensor, weight: Tensor,
            sums: LossSums, globalBatch: Int
        ) {
            self.objective = objective
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
                let range = b * n..<(b + 1) * n
                try objective.dataset.read(
                    item.index, flipped: objective.flips && item.key.isFlipped, key: item.key,
                    into: UnsafeMutableBufferPointer(rebasing: clean[range]))
                var uniform = item.key.random(.timestep)
                let t = uniform.integer(below: schedule.count)
                var normal = item.key.random(.noise)
                normal.fillNormal(UnsafeMutableBufferPointer(rebasing: noise[range]))

                let (signal, sigma) = (schedule.signalScale(t), schedule.noiseScale(t))
                for i in range {
                    mixed[i] = signal * clean[i] + sigma * noise[i]
                    switch schedule.config.predictionType {
                    case .epsilon: target[i] = noise[i]
                    case .velocity: target[i] = signal * noise[i] - sigma * clean[i]
                    case .sample: target[i] = clean[i]
                    }
                }
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
