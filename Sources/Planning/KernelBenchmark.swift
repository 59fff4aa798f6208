import Communication
import DistTrain
import LDMModel
import TensorCore

/// Times every convolution that occurs in training the given models, with every backend, and compares the
/// choice that `Backend.fastest` makes by rule with the measured times.
package struct KernelBenchmark {
    /// A choice that is slower than the fastest backend by more than this factor is flagged.
    package static let tolerance = 1.1
    /// Number of pixels that an autoencoder processes at once, as in `FirstStage`: limited because its images
    /// are large.
    private static let autoencoderPixels = 1 << 17

    /// The times of one case.
    package struct Result: Sendable {
        package let convolution: ConvolutionCase
        /// Number of times that one step of each model runs the case.
        package let count: Int
        package let timings: [ConvolutionTiming]
        /// The choice of `Backend.fastest`.
        package let pick: ConvolutionTiming
        package let best: ConvolutionTiming

        init(_ convolution: ConvolutionCase, count: Int, _ timings: [ConvolutionTiming]) {
            (self.convolution, self.count, self.timings) = (convolution, count, timings)
            best = timings.min { $0.seconds < $1.seconds }!
            let chosen = convolution.implementation(.fastest)
            pick = timings.first { $0.implementation == chosen }!
        }

        package var isFlagged: Bool { pick.seconds > KernelBenchmark.tolerance * best.seconds }
        /// Throughput in FLOP/s of direct convolution.
        package func speed(_ timing: ConvolutionTiming) -> Double {
            Double(convolution.flops) / timing.seconds
        }
    }

    private let cases: [(convolution: ConvolutionCase, count: Int)]

    /// - Parameters:
    ///   - models: U-Nets and autoencoders; models with the same configuration count once.
    ///   - batch: images per step; reduced for an autoencoder of large images.
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

    /// Number of distinct cases.
    package var count: Int { cases.count }

    /// Times all cases. All ranks time the same case at the same time. Collective.
    ///
    /// - Parameter each: receives each result, and the fraction of the total work that is done.
    package func run(_ communicator: Communicator, each: (Result, _ done: Double) -> Void) throws
        -> [Result]
    {
        // The time of a case is its arithmetic plus a constant overhead.
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

    /// The convolutions of one training step, forward and backward, including linear layers.
    private static func convolutions(_ model: ModelConfig, dtype: DType, batch: Int) throws
        -> [ConvolutionCase]
    {
        // The cases do not depend on the backend of the recording; the plans of this one are the cheapest to
        // create.
        let tape = Tape(dtype: dtype, backend: .openBLAS, recordsGradients: true)
        switch model {
        case .unet(let config):
            let objective = DenoisingObjective(
                unet: try UNet2DModel.forTraining(config),
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
            // `ModelState` trains bf16 with bf16 weights. Narrowing the store here would have to fill it
            // first.
            var convolution = $0
            convolution.weightType = dtype
            return convolution
        }
    }
}
