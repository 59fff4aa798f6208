import LDMModel
import TensorCore

// What runs make of their configurations.

extension Communicator {
    /// What `precision: auto` stands for in this job: bf16 only if every rank's processor multiplies it natively.
    /// Collective.
    public func automaticDType() throws(CommunicationError) -> DType {
        try allAgree(Processor.hasNativeBFloat16) ? .bfloat16 : .float32
    }
}

extension TrainConfiguration {
    /// The type that `precision` names; `auto` is bf16 where every rank's processor multiplies it natively, once the
    /// ranks have agreed on that, and until then where this one does.
    var dtype: DType {
        switch precision {
        case .fp32: return .float32
        case .bf16: return .bfloat16
        case .auto: return automaticDType ?? (Processor.hasNativeBFloat16 ? .bfloat16 : .float32)
        }
    }

    /// Lets `auto` name the same type on every rank. Collective.
    mutating func agreeOnPrecision(_ communicator: any Communicator) throws(CommunicationError) {
        automaticDType = try communicator.automaticDType()
    }
}

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
    var session: SessionSettings {
        var settings = SessionSettings(seed: seed, train, optimizer, ema, checkpoint, logging)
        settings.cadence.evaluateEvery = evaluation.every
        return settings
    }

    /// The grids of a run show the same noise at every step.
    var samplingSettings: SamplingSettings {
        SamplingSettings(
            method: sampling.sampler == .ddpm ? .ddpm : .ddim, steps: sampling.steps, eta: sampling.eta,
            spacing: sampling.spacing, seed: seed)
    }
}

extension AutoencoderConfiguration {
    var session: SessionSettings { SessionSettings(seed: seed, train, optimizer, ema, checkpoint, logging) }
}
