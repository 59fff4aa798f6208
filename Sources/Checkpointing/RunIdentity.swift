import LDMModel
import Support

/// What a run is: the part of a manifest that stays the same from checkpoint to checkpoint.
package struct RunIdentity: Sendable, Equatable {
    package var name: String
    package var seed: UInt64
    /// The resolved configuration, YAML.
    package var configuration: String
    /// Folder of the trained weights: "unet", or "vae" where an autoencoder is trained.
    package var modelFolder: String
    /// The model's `config.json`, diffusers' keys.
    package var modelConfig: String
    /// `scheduler_config.json` for sampling; nil for an autoencoder.
    package var schedulerConfig: String?
    package var datasetFingerprint: String?
    /// Of a run, not of a checkpoint: what an earlier version would have written as `datasetFingerprint`.
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

    /// 16 hexadecimal digits that tell one configuration from another.
    package var configurationHash: String {
        var hash = SourceFingerprint()
        hash.add(configuration)
        return hash.text
    }
}
