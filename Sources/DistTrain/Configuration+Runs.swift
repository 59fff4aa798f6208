import Checkpointing
import Configuration
import Datasets

extension DataConfiguration {
    /// The location of the samples, and how images are read.
    var options: DataOptions {
        DataOptions(
            path: isSynthetic ? "\(path):\(syntheticCount)" : path, imageSize: size ?? 64,
            channels: channels)
    }
}

/// The error of a model whose input has other channels than the data.
///
/// - Parameter canConvert: whether the samples are images, which can be read with 1 or 3 channels.
func channelMismatch(
    _ dataset: any TrainingDataset, inChannels: Int, canConvert: Bool, what: String
) -> String {
    let found = dataset.channels
    var remedies = ["set model.in_channels and out_channels to \(found)"]
    if canConvert, inChannels == 1 || inChannels == 3 {
        remedies.append(
            dataset.preparedFolder == nil
                ? "data.channels to \(inChannels)" : "prepare the images with --channels \(inChannels)")
    }
    return "model.in_channels is \(inChannels), but the \(what) of \(dataset.name) have \(found) "
        + "\(found == 1 ? "channel" : "channels"); \(remedies.joined(separator: ", or "))"
}

extension TrainingConfiguration {
    var stepSettings: TrainingStep.Settings {
        TrainingStep.Settings(
            seed: seed, batchSize: train.batchSize, microBatchSize: train.microBatchSize,
            clipNorm: optimizer.clipNorm.map { Float($0) }, reduceDType: train.reduceDType.dtype)
    }

    package var stateSettings: ModelState.Settings {
        ModelState.Settings(
            sharding: train.sharding, dtype: train.dtype,
            optimizer: AdamW.Settings(
                beta1: optimizer.betas[0], beta2: optimizer.betas[1], eps: optimizer.eps,
                weightDecay: optimizer.weightDecay),
            averages: ema.decays.map { WeightAverage.Settings(decay: $0, warmup: ema.warmup) }
                + ema.sigmaRel.map { WeightAverage.Settings(sigmaRel: $0) })
    }

    package var learningRate: LearningRate {
        LearningRate(
            peak: Float(optimizer.learningRate), warmupSteps: optimizer.warmupSteps,
            shape: optimizer.schedule == .cosine ? .cosine : .constant,
            final: Float(optimizer.minLearningRate), totalSteps: train.steps)
    }

    var intervals: Intervals {
        Intervals(
            steps: train.steps, log: train.logEvery, sample: train.sampleEvery,
            checkpoint: train.checkpointEvery, checkReplicas: train.checkReplicasEvery,
            snapshot: ema.snapshotEvery, evaluate: evaluationInterval)
    }

    var retention: Retention {
        Retention(
            keepLast: checkpoint.keepLast, keepEvery: checkpoint.keepEvery ?? 0, keepBest: checkpoint.keepBest
        )
    }
}

/// The intervals of a run's periodic actions, in steps; 0 means never.
package struct Intervals: Sendable {
    /// The length of the run.
    package var steps: Int
    package var log: Int
    package var sample: Int
    package var checkpoint: Int
    package var checkReplicas: Int
    package var snapshot: Int
    package var evaluate: Int

    func isDue(_ interval: KeyPath<Intervals, Int>, at step: Int) -> Bool {
        let every = self[keyPath: interval]
        return every > 0 && step % every == 0
    }
}
