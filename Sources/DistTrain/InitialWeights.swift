import Checkpointing
import Communication
import Configuration
import LDMModel
import Support
import TensorCore

/// The weights of another model from which a run starts: `--init-from`.
struct InitialWeights {
    /// The path that the user gave.
    let path: String
    /// Finds the model's folder.
    let locate: (String) throws -> ModelFolder
    /// The differences that prevent using a folder's weights, a phrase each; throws for a model of another class.
    let differences: (ModelFolder) throws -> [String]
    /// The noise schedule of the run, if any; a note says if the weights were trained with another one.
    let scheduler: SchedulerConfig?

    /// The weights of a U-Net: a UNet2DModel's folder, a pipeline, a run or a checkpoint (its slowest average).
    static func unet(_ path: String?, for model: UNet2DConfig, _ scheduler: SchedulerConfig)
        -> InitialWeights?
    {
        path.map {
            InitialWeights(
                path: $0, locate: Configuration.locateModel,
                differences: { model.differences(from: try $0.readUNetConfig()) }, scheduler: scheduler)
        }
    }

    /// The weights of an autoencoder: an AutoencoderKL's folder, or a folder that contains one.
    static func autoencoder(_ path: String?, for model: AutoencoderKLConfig) -> InitialWeights? {
        path.map {
            InitialWeights(
                path: $0, locate: AutoencoderConfiguration.locateModel,
                differences: { model.differences(from: try $0.readAutoencoderKLConfig()) }, scheduler: nil)
        }
    }

    /// Loads the weights into `store` on all ranks, unless the run has a checkpoint to resume from. Collective.
    ///
    /// - Returns: the folder the weights came from; nil if the run resumes from a checkpoint.
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
            let differing = try differences(folder)
            guard differing.isEmpty else {
                throw RunError(
                    "the configured model differs from that of --init-from \(folder.path): "
                        + "\(differing.joined(separator: "; ")); make them equal, or omit the section 'model'"
                )
            }
            try folder.verifyWeights()
            try folder.loadWeights(into: store)
            printLine("Starting from the weights in \(folder.path)")
            if let scheduler, let theirs = (try? PipelineFolder.read(path))?.scheduler {
                let differing = scheduler.noiseDifferences(from: theirs)
                if !differing.isEmpty {
                    printLine(
                        "Note: they were trained with different noise: \(differing.joined(separator: "; "))")
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
