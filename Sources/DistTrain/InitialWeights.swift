import Checkpointing
import Communication
import LDMModel
import Support
import TensorCore

/// The weights of another model that a run starts from: `--init-from`.
struct InitialWeights {
    /// What was asked for.
    let path: String
    /// Finds the model's folder; may throw.
    let locate: (String) throws -> ModelFolder
    /// What stands in the way of using a folder's weights, a phrase each; throws for another class.
    let differences: (ModelConfig, ModelFolder) throws -> [String]
    /// The noise that the run trains for, where there is one: weights trained for another are worth a word.
    let scheduler: SchedulerConfig?

    /// The weights of a U-Net, for a run of `model`: a UNet2DModel's folder, a pipeline, a run or a checkpoint, of
    /// which the slowest average is taken.
    static func unet(
        _ path: String?, for model: UNet2DConfig, _ scheduler: SchedulerConfig
    ) -> InitialWeights? {
        path.map {
            InitialWeights(
                path: $0, locate: PipelineFolder.locateUNet,
                differences: { config, folder in
                    guard case .unet(let theirs) = config else {
                        throw ModelFolderError(folder.path, "holds an autoencoder, expected a UNet2DModel")
                    }
                    return model.differences(from: theirs)
                }, scheduler: scheduler)
        }
    }

    /// The weights of an autoencoder, for a run of `model`: an AutoencoderKL's folder, or what has one in it.
    static func autoencoder(_ path: String?, for model: AutoencoderKLConfig) -> InitialWeights? {
        path.map {
            InitialWeights(
                path: $0, locate: PipelineFolder.locateAutoencoder,
                differences: { config, folder in
                    guard case .autoencoderKL(let theirs) = config else {
                        throw ModelFolderError(folder.path, "holds another model, expected an AutoencoderKL")
                    }
                    return model.differences(from: theirs)
                }, scheduler: nil)
        }
    }

    /// Loads the weights into `store` on all ranks, unless the run has a checkpoint to resume from. Collective.
    ///
    /// - Returns: the folder the weights came from; nil where a checkpoint goes before.
    /// - Throws: `RunError` with all keys in which the models differ, or `ModelFolderError` with all tensors.
    func load(
        into store: ParameterStore, run: RunFolder, _ resume: Resume, _ communicator: Communicator
    ) throws -> String? {
        let source = try communicator.fromRoot("reading \(path)") { () throws -> [String] in
            guard try run.checkpoints.candidates(for: resume).isEmpty else {
                printLine("Note: --init-from \(path) is ignored, since the run resumes from a checkpoint")
                return []
            }
            let folder = try locate(path)
            let differing = try differences(try folder.readModelConfig(), folder)
            guard differing.isEmpty else {
                throw RunError(
                    "the configuration's model is not that of --init-from \(folder.path): "
                        + "\(differing.joined(separator: "; ")); make them equal, or leave out the section 'model'"
                )
            }
            try folder.verifyWeights()
            try folder.loadWeights(into: store)
            printLine("Starting from the weights in \(folder.path)")
            if let scheduler, let theirs = (try? PipelineFolder.read(path))?.scheduler {
                let differing = scheduler.noiseDifferences(from: theirs)
                if !differing.isEmpty {
                    printLine("Note: they were trained for other noise: \(differing.joined(separator: "; "))")
                }
            }
            return [folder.path]
        }
        guard let folder = source.first else { return nil }
        let bytes = UnsafeMutableRawBufferPointer(
            UnsafeMutableBufferPointer(start: store.values, count: store.count))
        try communicator.broadcast(bytes, root: 0)
        store.valuesChanged()
        return folder
    }
}
