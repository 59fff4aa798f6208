import LDMModel
import Support

/// The identity of a run: the part of a manifest that is the same in all of its checkpoints.
package struct RunIdentity: Sendable, Equatable {
    package var name: String
    package var seed: UInt64
    /// The resolved configuration as YAML.
    package var configuration: String
    /// Folder of the trained weights: "unet", or "vae" if an autoencoder is trained.
    package var modelFolder: String
    /// The model's `config.json`, with diffusers' keys.
    package var modelConfig: String
    /// `scheduler_config.json` for sampling; nil for an autoencoder.
    package var schedulerConfig: String?
    package var datasetFingerprint: String?
    /// Set for a run, not for a checkpoint: the value that an earlier version would have written as
    /// `datasetFingerprint`.
    package var earlierDatasetFingerprint: EarlierFingerprint?
    /// nil in pixel space.
    package var firstStage: FirstStageReference?
    package var programVersion: String

    package init(
        name: String, seed: UInt64, configuration: String, modelFolder: String = "unet", modelConfig: String,
        schedulerConfig: String? = nil, datasetFingerprint: String? = nil,
        earlierDatasetFingerprint: EarlierFingerprint? = nil,
        firstStage: FirstStageReference? = nil, programVersion: String
    ) {
        self.name = name
        self.seed = seed
        self.configuration = configuration
        self.modelFolder = modelFolder
        self.modelConfig = modelConfig
        self.schedulerConfig = schedulerConfig
        self.datasetFingerprint = datasetFingerprint
        self.earlierDatasetFingerprint = earlierDatasetFingerprint
        self.firstStage = firstStage
        self.programVersion = programVersion
    }

    /// 16 hexadecimal digits that identify the configuration.
    package var configurationHash: String {
        var hash = SourceFingerprint()
        hash.add(configuration)
        return hash.text
    }
}
