import LDMModel
import TensorCore

/// A model's blocks and their sizes, computed from its configuration without reading weights.
struct Architecture {
    struct Part {
        /// The common prefix of its parameters' names, such as "down_blocks.0".
        var name: String
        /// The block's class in diffusers; empty if there is none.
        var kind: String
        /// Height and width of the output in pixels; nil if the model accepts any size.
        var side: Int?
        var channels: Int?
        var parameterCount: Int
    }

    let parts: [Part]
    let parameterCount: Int

    /// Returns nil if the run's configuration cannot be read.
    init?(_ run: ReportedRun) {
        if let configuration = run.configuration {
            guard let unet = try? UNet2DModel(configuration.model) else { return nil }
            let side =
                configuration.model.sampleSize?.height
                ?? (configuration.firstStagePath == nil ? configuration.data.size : nil)
            self.init(unet, side: side)
        } else if let configuration = run.autoencoder {
            guard let model = try? AutoencoderKL(configuration.model) else { return nil }
            let size = configuration.data.size
            let latent = size.map { $0 / configuration.model.downsamplingFactor }
            let channels = configuration.model.latentChannels
            self.init(model.store) { name in
                switch name {
                case "encoder", "quant_conv": return (name == "encoder" ? "Encoder" : "", latent, channels)
                case "decoder": return ("Decoder", size, configuration.model.outChannels)
                default: return ("", latent, channels)
                }
            }
        } else {
            return nil
        }
    }

    private init(_ unet: UNet2DModel, side: Int?) {
        let config = unet.config
        let channels = config.blockOutChannels
        func size(_ level: Int) -> Int? { side.map { $0 >> level } }
        self.init(unet.store) { name in
            let index = name.split(separator: ".").last.flatMap { Int($0) }
            if name.hasPrefix("down_blocks"), let index {
                return (
                    config.downBlockTypes[index].rawValue, size(min(index + 1, channels.count - 1)),
                    channels[index]
                )
            }
            if name.hasPrefix("up_blocks"), let index {
                let level = channels.count - 1 - index
                return (config.upBlockTypes[index].rawValue, size(max(level - 1, 0)), channels[level])
            }
            switch name {
            case "conv_in": return ("", side, channels[0])
            case "time_embedding", "class_embedding": return ("", nil, config.timeEmbedDim)
            case "mid_block": return ("UNetMidBlock2D", size(channels.count - 1), channels.last)
            case "conv_norm_out": return ("", side, channels[0])
            case "conv_out": return ("", side, config.outChannels)
            default: return ("", nil, nil)
            }
        }
    }

    private init(
        _ store: ParameterStore, _ describe: (String) -> (kind: String, side: Int?, channels: Int?)
    ) {
        var parts: [Part] = []
        for parameter in store.parameters {
            let names = parameter.name.split(separator: ".")
            let hasIndex = names.count > 1 && Int(names[1]) != nil
            let name = names.prefix(hasIndex ? 2 : 1).joined(separator: ".")
            if parts.last?.name != name {
                let (kind, side, channels) = describe(name)
                parts.append(Part(name: name, kind: kind, side: side, channels: channels, parameterCount: 0))
            }
            parts[parts.count - 1].parameterCount += parameter.count
        }
        self.parts = parts
        parameterCount = store.parameterCount
    }
}
