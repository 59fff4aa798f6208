import Communication
import LDMModel
import TensorCore

/// What the configurations of all training runs have in common.
package protocol TrainingConfiguration: Sendable {
    var name: String { get }
    var seed: UInt64 { get }
    var optimizer: OptimizerConfiguration { get }
    var ema: EMAConfiguration { get }
    var train: TrainConfiguration { get }
    var checkpoint: CheckpointConfiguration { get }
    var logging: LoggingConfiguration { get }
    /// Steps between two evaluations; 0 for none.
    var evaluationInterval: Int { get }
}

extension Configuration: TrainingConfiguration {
    package var evaluationInterval: Int { evaluation.every }
}

extension AutoencoderConfiguration: TrainingConfiguration {
    package var evaluationInterval: Int { 0 }
}

// Values that runs derive from their configurations.

extension Communicator {
    /// The type for `precision: auto` in this job: bf16 only if every rank's processor has native bf16
    /// multiplication. Collective.
    package func automaticDType() throws(CommunicationError) -> DType {
        try allAgree(Processor.hasNativeBFloat16) ? .bfloat16 : .float32
    }
}

extension TrainConfiguration {
    /// The type for `precision`. For `auto` it is bf16 if every rank's processor has native bf16
    /// multiplication; before `agreeOnPrecision`, only this rank's processor is considered.
    package var dtype: DType {
        switch precision {
        case .fp32: return .float32
        case .bf16: return .bfloat16
        case .auto: return automaticDType ?? (Processor.hasNativeBFloat16 ? .bfloat16 : .float32)
        }
    }

    /// The resolved precision, as a configuration names it.
    package var precisionName: String { dtype == .bfloat16 ? "bf16" : "fp32" }

    /// Lets `auto` name the same type on every rank. Collective.
    package mutating func agreeOnPrecision(_ communicator: Communicator) throws(CommunicationError) {
        automaticDType = try communicator.automaticDType()
    }
}

extension Configuration {
    /// The settings of sample grids. The seed is fixed, so a run's grids use the same noise at every step.
    package var samplingSettings: SamplingSettings {
        SamplingSettings(
            method: sampling.sampler == .ddpm ? .ddpm : .ddim, steps: sampling.steps, eta: sampling.eta,
            spacing: sampling.spacing, seed: seed)
    }
}
