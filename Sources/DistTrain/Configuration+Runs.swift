import Checkpointing
import Configuration
import Datasets

extension DataConfiguration {
    /// Where the samples are, and how images are read.
    var options: DataOptions {
        DataOptions(path: isSynthetic ? "\(path):\(count)" : path, imageSize: size ?? 64)
    }
}

extension OptimizerConfiguration {
    func learningRate(steps: Int) -> LearningRate {
        LearningRate(
            peak: Float(learningRate), warmupSteps: warmupSteps,
            shape: schedule == .cosine ? .cosine : .constant, final: Float(minLearningRate), totalSteps: steps
        )
    }

    var adamW: AdamW.Settings {
        AdamW.Settings(beta1: beta1, beta2: beta2, eps: eps, weightDecay: weightDecay)
    }
}

extension SessionSettings {
    init(
        seed: UInt64, _ train: TrainConfiguration, _ optimizer: OptimizerConfiguration,
        _ ema: EMAConfiguration,
        _ checkpoint: CheckpointConfiguration, _ logging: LoggingConfiguration
    ) {
        self.init(
            seed: seed, batchSize: train.batchSize, microBatchSize: train.microBatchSize,
            clipNorm: optimizer.clipNorm, reduceDType: train.reduceDType.dtype,
            state: ModelState.Settings(
                sharding: train.sharding, dtype: train.dtype, optimizer: optimizer.adamW,
                averages: ema.decays.map { WeightAverage.Settings(decay: $0, warmup: ema.warmup) }
                    + ema.sigmaRel.map { WeightAverage.Settings(sigmaRel: $0) }),
            learningRate: optimizer.learningRate(steps: train.steps),
            cadence: Cadence(
                steps: train.steps, logEvery: train.logEvery, sampleEvery: train.sampleEvery,
                checkpointEvery: train.checkpointEvery, checkReplicasEvery: train.checkReplicasEvery,
                snapshotEvery: ema.snapshotEvery),
            retention: Retention(
                keepLast: checkpoint.keepLast, keepEvery: checkpoint.keepEvery ?? 0,
                keepBest: checkpoint.keepBest),
            saveTimeout: checkpoint.saveTimeout, logging: logging)
    }
}

extension Configuration {
    package var session: SessionSettings {
        var settings = SessionSettings(seed: seed, train, optimizer, ema, checkpoint, logging)
        settings.cadence.evaluateEvery = evaluation.every
        return settings
    }
}

extension AutoencoderConfiguration {
    package var session: SessionSettings {
        SessionSettings(seed: seed, train, optimizer, ema, checkpoint, logging)
    }
}
