import LDMModel
import Support
import TensorCore

extension ParameterStore {
    /// A hash of the tensors' names, shapes and fp32 values, independent of the host and of the file format
    /// they were loaded from. 16 hexadecimal digits.
    package var contentHash: String {
        var hash = SourceFingerprint()
        for parameter in parameters.sorted(by: { $0.name < $1.name }) {
            hash.add(parameter.name)
            for side in parameter.shape { hash.add(side) }
            hash.add([UInt8](UnsafeRawBufferPointer(parameter.values)))
        }
        return hash.text
    }
}

extension FirstStage {
    /// A hash of the weights; see `ParameterStore.contentHash`.
    package var weightsHash: String { model.store.contentHash }

    /// The record of this first stage for the manifest of a prepared folder.
    package var record: PreparedManifest.FirstStageRecord {
        switch model {
        case .autoencoderKL(let model):
            return PreparedManifest.FirstStageRecord(
                className: model.config.className, config: model.config.node.json, weightsHash: weightsHash,
                scalingFactor: model.config.scalingFactor, shiftFactor: model.config.shiftFactor)
        case .vqModel(let model):
            return PreparedManifest.FirstStageRecord(
                className: model.config.className, config: model.config.node.json, weightsHash: weightsHash,
                scalingFactor: model.config.scalingFactor)
        }
    }

    /// The record of this first stage for a checkpoint of the diffusion model trained with it.
    package func reference(path: String) -> FirstStageReference {
        let record = record
        return FirstStageReference(
            path: path, weightsHash: record.weightsHash, scalingFactor: record.scalingFactor,
            shiftFactor: record.shiftFactor ?? 0)
    }

    /// Whether the encoder outputs a Gaussian from which latents are sampled.
    var hasPosterior: Bool {
        if case .autoencoderKL = model { return true }
        return false
    }
}
