import Communication
import DistTrain
import LDMModel
import TensorCore

/// Times every convolution that training the given models takes, with every backend, and holds the choice that
/// `Backend.fastest` makes by rule against what was measured.
package struct KernelBenchmark {
    /// A choice that costs more than this over the best is flagged.
    package static let tolerance = 1.1
    /// Pixels that pass an autoencoder at once, as in `FirstStage`: it is the image that is large, not the batch.
    private static let autoencoderPixels = 1 << 17

    /// One case's times.
    package struct Result: Sendable {
        package let convolution: ConvolutionCase
        /// How often a step of each model runs it.
        package let count: Int
        package let timings: [ConvolutionTiming]
        /// What `Backend.fastest` takes.
        package let pick: ConvolutionTiming
        package let best: ConvolutionTiming

        init(_ convolution: ConvolutionCase, count: Int, _ timings: [ConvolutionTiming]) {
            self.convolution = convolution
            self.count = count
            self.timings = timings
            best = timings.min { $0.seconds < $1.seconds }!
            let chosen = convolution.implementation(.fastest)
            pick = timings.first { $0.implementation == chosen }!
        }

        package var isFlagged: Bool { pick.seconds > KernelBenchmark.tolerance * best.seconds }
        /// FLOP/s of direct convolution.
        package func speed(_ timing: ConvolutionTiming) -> Double {
            Double(convolution.flops) / timing.seconds
        }
    }

    private let cases: [(convolution: ConvolutionCase, count: Int)]

    /// - Parameters:
    ///   - models: U-Nets and autoencoders; those of one configuration count once.
    ///   - batch: images a step; fewer for an autoencoder of large images.
    package init(models: [ModelConfig], dtype: DType, batch: Int) throws {
        var counts: [ConvolutionCase: Int] = [:]
        var order: [ConvolutionCase] = []
        for (index, model) in models.enumerated() where !models[..<index].contains(model) {
            for convolution in try Self.convolutions(model, dtype: dtype, batch: batch) {
                if counts.updateValue((counts[convolution] ?? 0) + 1, forKey: convolution) == nil {
                    order.append(convolution)
                }
            }
        }
        cases = order.map { ($0, counts[$0]!) }
    }

    /// Distinct cases.
    package var count: Int { cases.count }

    /// Times all cases; every rank times the same one at the same time. Collective.
    ///
    /// - Parameter each: is given each result, and the share of the whole work that is done with it.
    package func run(_ communicator: any Communicator, each: (Result, _ done: Double) -> Void) throws
        -> [Result]
    {
        // A case takes its arithmetic, and what does not shrink with it.
        let weights = cases.map { 1e10 + Double($0.convolution.flops) }
        let total = weights.reduce(0, +)
        let arena = Arena()
        var done = 0.0
        var results: [Result] = []
        for ((convolution, count), weight) in zip(cases, weights) {
            try communicator.barrier()
            let result = Result(convolution, count: count, convolution.time(arena: arena))
            results.append(result)
            done += weight
            each(result, done / total)
        }
        return results
    }

    /// The convolutions of one training step, forward and backward, linear layers included.
    private static func convolutions(_ model: ModelConfig, dtype: DType, batch: Int) throws
        -> [ConvolutionCase]
    {
        // Which backend records makes no difference to the cases; this one's plans cost the least to make.
        let tape = Tape(dtype: dtype, backend: .openBLAS, recordsGradients: true)
        switch model {
        case .unet(let config):
            let objective = DenoisingObjective(
                unet: try UNet2DModel(config),
                dataset: NoiseDataset(count: batch, size: config.timedSize, channels: config.inChannels),
                schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil, flips: false)
            _ = objective.record(on: tape, batch: batch, globalBatch: batch)
        case .autoencoderKL(let config):
            let size = config.sampleSize
            let batch = min(batch, max(1, autoencoderPixels / (size.height * size.width)))
            let objective = AutoencoderObjective(
                model: try AutoencoderKL(config),
                dataset: NoiseDataset(count: batch, size: size, channels: config.inChannels),
                weights: .init(l1: 1, mse: 0, kl: 0, edge: 0), flips: false)
            _ = objective.record(on: tape, batch: batch, globalBatch: batch)
        case .vqModel:
            preconditionFailure("a VQModel is not trained here")
        }
        return tape.convolutions.map {
            // `ModelState` trains bf16 from weights in bf16; narrowing the store here would fill it first.
            var convolution = $0
            convolution.weightType = dtype
            return convolution
        }
    }
}
