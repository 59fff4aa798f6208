import FileFormats

/// `model_index.json` of a diffusers pipeline: its components and their folders.
struct PipelineIndex {
    static let fileName = "model_index.json"

    let folder: String
    private let node: ConfigNode

    init(_ folder: String) throws(ConfigError) {
        self.folder = folder
        node = try ConfigNode(jsonFile: PipelineFolder.join(folder, Self.fileName))
    }

    /// The U-Net's folder.
    func unet() throws(ModelFolderError) -> ModelFolder {
        guard let path = part("unet") else {
            let name = node["_class_name"].map { ", \($0.found)," } ?? ""
            throw ModelFolderError(
                folder, "is a pipeline\(name) without a 'unet', expected one with a UNet2DModel")
        }
        return ModelFolder(path)
    }

    /// The autoencoder's folder; nil in pixel space. LDMPipeline names it `vqvae` regardless of its class;
    /// other pipelines name it `vae`.
    var autoencoder: ModelFolder? {
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
