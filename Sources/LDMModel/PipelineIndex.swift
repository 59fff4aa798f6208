import FileFormats
import Foundation
import Support

/// `model_index.json` of a diffusers pipeline: its components and their folders.
package struct PipelineIndex {
    package static let fileName = "model_index.json"

    let folder: String
    private let node: ConfigNode

    package init(_ folder: String) throws(ConfigError) {
        self.folder = folder
        node = try ConfigNode(jsonFile: PipelineFolder.join(folder, Self.fileName))
    }

    /// The U-Net's folder.
    package func unet() throws(ModelFolderError) -> ModelFolder {
        guard let path = part("unet") else {
            let name = node["_class_name"].map { ", \($0.found)," } ?? ""
            throw ModelFolderError(
                folder, "is a pipeline\(name) without a 'unet', expected one with a UNet2DModel")
        }
        return ModelFolder(path)
    }

    /// The autoencoder's folder; nil in pixel space. LDMPipeline names it `vqvae` regardless of its class;
    /// other pipelines name it `vae`.
    package var autoencoder: ModelFolder? {
        ["vqvae", "vae"].first(where: has).map { ModelFolder(PipelineFolder.join(folder, $0)) }
    }

    /// nil if the pipeline has none.
    func scheduler() throws(ConfigError) -> SchedulerConfig? {
        guard let path = part("scheduler") else { return nil }
        return try SchedulerConfig(contentsOf: PipelineFolder.join(path, "scheduler_config.json"))
    }

    /// Whether the index has a component; an absent one may be listed as [null, null].
    private func has(_ name: String) -> Bool {
        guard case .sequence(let entry)? = node[name]?.value, entry.count == 2, case .string = entry[1].value
        else { return false }
        return true
    }

    /// Early pipelines, such as google/ddpm-cifar10-32, have model and scheduler in the same folder as the
    /// index.
    private func part(_ name: String) -> String? {
        guard has(name) else { return nil }
        let own = PipelineFolder.join(folder, name)
        return PipelineFolder.exists(own) ? own : folder
    }
}

/// The first stage that a diffusion model was trained with, as recorded in a checkpoint's manifest.
package struct FirstStageReference: Sendable, Equatable {
    /// The autoencoder's folder, as given in the run's configuration.
    package var path: String
    /// Hash of the autoencoder's weights, if one was computed.
    package var weightsHash: String?
    /// Latents are multiplied by this for training, and divided by it before decoding.
    package var scalingFactor: Double
    /// Subtracted from latents before scaling.
    package var shiftFactor: Double

    package init(path: String, weightsHash: String? = nil, scalingFactor: Double, shiftFactor: Double = 0) {
        (self.path, self.weightsHash) = (path, weightsHash)
        (self.scalingFactor, self.shiftFactor) = (scalingFactor, shiftFactor)
    }

    /// Parses the value written by `json`; nil for null or anything else.
    package init?(_ json: JSONValue?) {
        guard let path = json?["path"]?.stringValue, let scale = json?["scaling_factor"]?.doubleValue else {
            return nil
        }
        self.init(
            path: path, weightsHash: json?["weights_hash"]?.stringValue, scalingFactor: scale,
            shiftFactor: json?["shift_factor"]?.doubleValue ?? 0)
    }

    package var json: JSONValue {
        [
            "path": .string(path), "weights_hash": weightsHash.map { .string($0) } ?? .null,
            "scaling_factor": .number(scalingFactor), "shift_factor": .number(shiftFactor),
        ]
    }
}
