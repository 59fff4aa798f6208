import Communication
import DistTrain
import LDMModel
import TensorCore

extension ComputeModel {
    /// Bytes per element that AdamW (including the gradient norm) and each average read and write.
    private static let updateBytes = (adamW: 32.0, average: 12.0)

    /// Derives the profile of a step for which only the total time is known. The time is divided in
    /// proportion to the FLOPs, which determines when buckets are complete and when weights are needed; the
    /// update moves its bytes at the speed of a memory copy.
    ///
    /// - Parameters:
    ///   - stepSeconds: the time of a step of one rank on `batch` images.
    ///   - copyBytesPerSecond: the throughput of a memory copy.
    package static func derived(
        stepSeconds: Double, batch: Int, unet: UNet2DConfig, workload: StepWorkload,
        copyBytesPerSecond: Double
    ) throws -> ComputeModel {
        let model = try UNet2DModel(unet)
        let objective = DenoisingObjective(
            unet: model, dataset: NoiseDataset(count: 1, size: unet.timedSize, channels: unet.inChannels),
            schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil, flips: false)
        if workload.dtype == .bfloat16 { model.store.narrow() }
        let tape = Tape(dtype: workload.dtype, recordsGradients: true)
        _ = objective.record(on: tape, batch: batch, globalBatch: batch)
        let uses = ForwardOrder.uses(of: workload.forward, store: model.store, tape: tape)
        let starts = GradientBuckets.starts(workload.buckets, store: model.store, tape: tape)
        tape.plan()
        let bytes =
            Double(workload.elements)
            * (updateBytes.adamW + Double(workload.averages) * updateBytes.average)
        let update = min(stepSeconds / 2, bytes / (2 * copyBytesPerSecond))
        let pass = stepSeconds - update
        let all = Double(tape.flops)
        var ready = Array(repeating: pass, count: workload.buckets.count)
        var need = Array(repeating: 0.0, count: workload.forward.count)
        var before = 0.0
        for (instruction, done) in tape.flopsDone.enumerated() {
            for range in uses[instruction] { need[range] = before }
            before = pass * Double(done) / all
            for bucket in starts[instruction] { ready[bucket] = before }
        }
        return ComputeModel(
            profiles: [
                ComputeProfile(
                    batch: batch, passSeconds: pass, readySeconds: ready, needSeconds: need,
                    updateSeconds: update, activationBytes: tape.byteCount)
            ], ranks: 1, threads: Processor.threads, copyBytesPerSecond: copyBytesPerSecond, otherBytes: 0)
    }
}
