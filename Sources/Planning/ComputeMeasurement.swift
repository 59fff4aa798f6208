import Communication
import DistTrain
import Foundation
import LDMModel
import TensorCore

/// Times the computation of one rank in a step on this machine, without waiting for other ranks.
///
/// Under mpirun every rank runs its own steps at the same time, like the ranks of one host: they share its
/// memory, caches and, if there are more threads than cores, its cores.
package struct ComputeMeasurement {
    package var unet: UNet2DConfig
    /// Compute type, averages and optimizer.
    package var state: ModelState.Settings
    /// Batch sizes, ascending.
    package var batches: [Int]
    /// Timed steps per batch size, after one untimed step.
    package var steps: Int

    package init(unet: UNet2DConfig, state: ModelState.Settings, batches: [Int], steps: Int = 3) {
        precondition(!batches.isEmpty && steps > 0, "\(batches) images, \(steps) steps")
        (self.unet, self.state, self.batches, self.steps) = (unet, state, batches, steps)
    }

    /// Runs the measurement. Collective.
    package func run(_ communicator: Communicator) throws -> ComputeModel {
        let model = try UNet2DModel.forTraining(unet)
        try communicator.collectively("making the model") { try model.store.checkMemory() }
        model.store.initialize(seed: 0)
        let workload = StepWorkload(
            model.store, averages: state.averages.count, sharding: state.sharding, dtype: state.dtype,
            reduceDType: .fp32)
        let alone = Communicator()
        let modelState = ModelState(model.store, state, alone)
        let objective = DenoisingObjective(
            unet: model,
            dataset: NoiseDataset(
                count: 4 * batches.max()!, size: unet.timedSize, channels: unet.inChannels),
            schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil, flips: false)
        var profiles: [ComputeProfile] = []
        for batch in batches {
            let step = TrainingStep(
                TrainingStep.Settings(seed: 0, batchSize: batch, microBatchSize: nil, clipNorm: 1),
                objective: objective, state: modelState,
                learningRate: LearningRate(
                    peak: 2e-4, warmupSteps: 0, shape: .constant, final: 0, totalSteps: steps + 1),
                communicator: alone)
            profiles.append(try profile(step, batch, workload, communicator))
        }
        let memory = MemoryModel(
            workload, RankLayout(hosts: 1),
            activationBytes: profiles.reduce(0) { $0 + $1.activationBytes }, otherBytes: 0)
        let peak = try communicator.allReduceMax(peakResidentMiB()) << 20
        return ComputeModel(
            profiles: profiles, ranks: communicator.size, threads: Processor.threads,
            copyBytesPerSecond: try Self.copySpeed(communicator),
            otherBytes: max(0, peak - (memory.totalBytes - memory.snapshotBytes)))
    }

    /// The median of the timed steps; each takes the times of the slowest rank.
    private func profile(
        _ step: TrainingStep, _ batch: Int, _ workload: StepWorkload,
        _ communicator: Communicator
    ) throws -> ComputeProfile {
        var timed: [ComputeProfile] = []
        for number in 0...steps {
            var ready = workload.buckets.map { _ in 0.0 }
            var need = workload.forward.map { _ in 0.0 }
            try communicator.barrier()
            let start = ContinuousClock.now
            step.bucketObserver = { ready[$0] = (ContinuousClock.now - start).seconds }
            step.useObserver = { need[$0] = (ContinuousClock.now - start).seconds }
            let result = try step(number)
            (step.bucketObserver, step.useObserver) = (nil, nil)
            var values =
                [result.times.total - result.times.optimizer, result.times.optimizer] + ready + need
            try communicator.allReduceMax(&values)
            timed.append(
                ComputeProfile(
                    batch: batch, passSeconds: values[0],
                    readySeconds: Array(values[2...].prefix(ready.count)),
                    needSeconds: Array(values.suffix(need.count)),
                    updateSeconds: values[1], activationBytes: step.activationBytes))
        }
        return timed.dropFirst().sorted { $0.passSeconds < $1.passSeconds }[steps / 2]
    }

    /// Throughput of copying 64 MiB in bytes/s: the median of five copies, on all ranks at the same time.
    /// Collective.
    package static func copySpeed(_ communicator: Communicator) throws(CommunicationError) -> Double {
        let bytes = 64 << 20
        var seconds: [Double] = []
        let places = (0..<2).map { _ in
            UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        }
        defer { for place in places { place.deallocate() } }
        for place in places { place.initializeMemory(as: UInt8.self, repeating: 1, count: bytes) }
        for _ in 0..<5 {
            try communicator.barrier()
            let start = ContinuousClock.now
            places[1].copyMemory(from: places[0], byteCount: bytes)
            seconds.append(try communicator.allReduceMax((ContinuousClock.now - start).seconds))
        }
        return Double(bytes) / seconds.sorted()[2]
    }
}
