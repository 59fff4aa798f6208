import LDMModel

/// What a run is: the part of a manifest that stays the same from checkpoint to checkpoint.
public struct RunIdentity: Sendable, Equatable {
    public var name: String
    public var seed: UInt64
    /// The resolved configuration, YAML.
    public var configuration: String
    /// Folder of the trained weights: "unet", or "vae" where an autoencoder is trained.
    public var modelFolder: String
    /// The model's `config.json`, diffusers' keys.
    public var modelConfig: String
    /// `scheduler_config.json` for sampling; nil for an autoencoder.
    public var schedulerConfig: String?
    public var datasetFingerprint: String?
    /// Of a run, not of a checkpoint: what an earlier version would have written as `datasetFingerprint`.
    public var earlierDatasetFingerprint: EarlierFingerprint?
    /// nil in pixel space.
    public var firstStage: FirstStageReference?
    public var programVersion: String

    public init(
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
    public var configurationHash: String {
        var hash = SourceFingerprint()
        hash.add(configuration)
        return hash.text
    }
}
