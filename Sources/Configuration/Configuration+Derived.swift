import Communication
import LDMModel
import TensorCore

// What runs make of their configurations.

extension Communicator {
    /// What `precision: auto` stands for in this job: bf16 only if every rank's processor multiplies it natively.
    /// Collective.
    package func automaticDType() throws(CommunicationError) -> DType {
        try allAgree(Processor.hasNativeBFloat16) ? .bfloat16 : .float32
    }
}

extension TrainConfiguration {
    /// The type that `precision` names; `auto` is bf16 where every rank's processor multiplies it natively, once the
    /// ranks have agreed on that, and until then where this one does.
    package var dtype: DType {
        switch precision {
        case .fp32: return .float32
        case .bf16: return .bfloat16
        case .auto: return automaticDType ?? (Processor.hasNativeBFloat16 ? .bfloat16 : .float32)
        }
    }

    /// Lets `auto` name the same type on every rank. Collective.
    package mutating func agreeOnPrecision(_ communicator: any Communicator) throws(CommunicationError) {
        automaticDType = try communicator.automaticDType()
    }
}

extension Configuration {
    /// The grids of a run show the same noise at every step.
    package var samplingSettings: SamplingSettings {
        SamplingSettings(
            method: sampling.sampler == .ddpm ? .ddpm : .ddim, steps: sampling.steps, eta: sampling.eta,
            spacing: sampling.spacing, seed: seed)
    }
}
