import Communication
import DistTrain
import LDMModel
import TensorCore

/// The computation of one rank in a step, without other ranks: measured, or derived from the time of a step.
package struct ComputeProfile: Codable, Equatable, Sendable {
    /// Images per pass.
    package var batch: Int
    /// Seconds from the start of the step to the end of the backward pass.
    package var passSeconds: Double
    /// For each gradient bucket, in order: seconds after the start at which it is complete.
    package var readySeconds: [Double]
    /// For each range of the forward order: seconds after the start at which it is first read.
    package var needSeconds: [Double]
    /// Seconds for the gradient norm, AdamW and averages of all parameters.
    package var updateSeconds: Double
    /// Bytes of activations and scratch memory.
    package var activationBytes: Int

    package init(
        batch: Int, passSeconds: Double, readySeconds: [Double], needSeconds: [Double],
        updateSeconds: Double, activationBytes: Int
    ) {
        (self.batch, self.passSeconds, self.readySeconds) = (batch, passSeconds, readySeconds)
        (self.needSeconds, self.updateSeconds) = (needSeconds, updateSeconds)
        self.activationBytes = activationBytes
    }
}

/// The computation on one rank of a host on which all ranks compute at the same time.
package struct ComputeModel: Codable, Equatable, Sendable {
    /// One or two profiles with ascending batch sizes.
    package var profiles: [ComputeProfile]
    /// Number of ranks that computed at the same time, and threads per rank.
    package var ranks: Int
    package var threads: Int
    /// Throughput of a memory copy of one rank in bytes/s, while all ranks copy.
    package var copyBytesPerSecond: Double
    /// Memory of the process that `MemoryModel` does not count: the program, its libraries, packed weights.
    package var otherBytes: Int

    package init(
        profiles: [ComputeProfile], ranks: Int, threads: Int, copyBytesPerSecond: Double, otherBytes: Int
    ) {
        precondition(!profiles.isEmpty, "no profile")
        (self.profiles, self.ranks, self.threads) = (profiles, ranks, threads)
        (self.copyBytesPerSecond, self.otherBytes) = (copyBytesPerSecond, otherBytes)
    }

    /// Forward and backward pass for a batch size: linear in the batch size through both profiles, or
    /// proportional to the only one.
    package func pass(batch: Int) -> ComputeProfile {
        let first = profiles[0]
        guard let last = profiles.last, last.batch != first.batch else {
            let scale = Double(batch) / Double(first.batch)
            return ComputeProfile(
                batch: batch, passSeconds: scale * first.passSeconds,
                readySeconds: first.readySeconds.map { scale * $0 },
                needSeconds: first.needSeconds.map { scale * $0 }, updateSeconds: first.updateSeconds,
                activationBytes: Int(scale * Double(first.activationBytes)))
        }
        let place = Double(batch - first.batch) / Double(last.batch - first.batch)
        func line(_ a: Double, _ b: Double) -> Double { max(0, a + place * (b - a)) }
        return ComputeProfile(
            batch: batch, passSeconds: line(first.passSeconds, last.passSeconds),
            readySeconds: zip(first.readySeconds, last.readySeconds).map(line),
            needSeconds: zip(first.needSeconds, last.needSeconds).map(line),
            updateSeconds: (first.updateSeconds + last.updateSeconds) / 2,
            activationBytes: Int(line(Double(first.activationBytes), Double(last.activationBytes))))
    }

    /// All passes over a rank's share in micro-batches. Weights are needed in the first pass, and buckets are
    /// complete in the last.
    package func share(_ images: Int, microBatch: Int?) -> ComputeProfile {
        let micro = min(images, microBatch ?? images)
        let last = images % micro == 0 ? micro : images % micro
        let before = Double((images - last) / micro) * pass(batch: micro).passSeconds
        var profile = pass(batch: last)
        profile.batch = images
        profile.passSeconds += before
        profile.readySeconds = profile.readySeconds.map { before + $0 }
        if before > 0 { profile.needSeconds = pass(batch: micro).needSeconds }
        if last < micro { profile.activationBytes = pass(batch: micro).activationBytes }
        return profile
    }
}

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
        let model = try UNet2DModel.forTraining(unet)
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
