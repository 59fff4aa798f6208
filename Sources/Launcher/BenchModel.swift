import ArgumentParser
import Configuration
import FileFormats
import Foundation
import LDMModel

/// Reads the model of a benchmark from a diffusers config.json or from the `model` section of a run's .yaml.
enum BenchModel {
    static func unet(_ path: String) throws -> UNet2DConfig {
        try isRun(path) ? Configuration.load(path: path).model : UNet2DConfig(contentsOf: path)
    }

    static func autoencoder(_ path: String) throws -> AutoencoderKLConfig {
        try isRun(path)
            ? AutoencoderConfiguration.load(path: path).model : AutoencoderKLConfig(contentsOf: path)
    }

    /// A U-Net or an AutoencoderKL, depending on the file.
    static func either(_ path: String) throws -> ModelConfig {
        guard isRun(path) else {
            let isAutoencoder =
                try ConfigNode(jsonFile: path)["_class_name"]?.value == .string("AutoencoderKL")
            return isAutoencoder ? .autoencoderKL(try autoencoder(path)) : .unet(try unet(path))
        }
        do {
            return .unet(try unet(path))
        } catch let asDiffusion {
            guard let model = try? autoencoder(path) else { throw asDiffusion }
            return .autoencoderKL(model)
        }
    }

    private static func isRun(_ path: String) -> Bool { path.hasSuffix(".yaml") || path.hasSuffix(".yml") }
}

struct BenchModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Print a model's config.json, as diffusers reads it.",
        discussion: "What scripts/bench gives to PyTorch, so that both sides measure the same model.")

    @Argument(help: "A run's .yaml, or a config.json.", completion: .file())
    var model: String

    func run() throws {
        try onAllRanks { communicator in
            guard communicator.isRoot else { return }
            switch try BenchModel.either(model) {
            case .unet(let config): print(try config.jsonText(), terminator: "")
            case .autoencoderKL(let config): print(try config.jsonText(), terminator: "")
            case .vqModel(let config): print(try config.jsonText(), terminator: "")
            }
        }
    }
}
