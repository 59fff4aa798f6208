import FileFormats
import Support

/// The U-Net of latent-diffusion (`openaimodel.UNetModel`) as a UNet2DModel.
///
/// Its input blocks are numbered through all levels: a convolution, then for each level the residual blocks,
/// each with optional attention, and a downsampling convolution. Shapes and names determine everything except
/// the width of the attention heads.
///
/// - Source: ldm/modules/diffusionmodules/openaimodel.py in github.com/CompVis/latent-diffusion.
struct CompVisUNet {
    let config: UNet2DConfig
    let tensors: RenamedTensors

    private struct Level {
        var channels = 0
        var layers = 0
        var attentions = 0
    }

    /// - Parameters:
    ///   - headChannels: width of an attention head; nil for one head.
    ///   - sampleSize: side of the latents in training; nil if unknown.
    init(_ source: RenamedModule, headChannels: Int?, sampleSize: Int?) throws {
        var module = source
        func fail(_ detail: String) -> ModelFolderError {
            ModelFolderError(source.tensors.path, "\(source.prefix)\(detail)")
        }
        let input = try module.shape("input_blocks.0.0.weight")
        let output = try module.shape("out.2.weight")
        guard input.count == 4, output.count == 4 else {
            throw fail("input_blocks.0.0 is not a convolution of two dimensions")
        }
        module.layer("input_blocks.0.0", "conv_in")
        module.layer("time_embed.0", "time_embedding.linear_1")
        module.layer("time_embed.2", "time_embedding.linear_2")
        let classes =
            module.layer("label_emb", "class_embedding") ? try module.shape("label_emb.weight").first : nil
        module.layer("out.0", "conv_norm_out")
        module.layer("out.2", "conv_out")

        // Down
        var levels = [Level()]
        var isScaleShift = false
        var index = 1
        while module.has("input_blocks.\(index).0.op.weight")
            || module.has("input_blocks.\(index).0.in_layers.0.weight")
        {
            let (old, block) = ("input_blocks.\(index)", "down_blocks.\(levels.count - 1)")
            index += 1
            if module.layer("\(old).0.op", "\(block).downsamplers.0.conv") {
                levels.append(Level())
                continue
            }
            let last = levels.count - 1
            let channels = try module.resnet("\(old).0", "\(block).resnets.\(levels[last].layers)")
            isScaleShift = try module.shape("\(old).0.emb_layers.1.weight").first == 2 * channels
            levels[last].channels = channels
            if try module.attention("\(old).1", "\(block).attentions.\(levels[last].layers)", headChannels) {
                levels[last].attentions += 1
            }
            levels[last].layers += 1
        }
        let layers = levels[0].layers
        guard layers > 0,
            levels.allSatisfy({ $0.layers == layers && ($0.attentions == 0 || $0.attentions == layers) })
        else {
            throw fail(
                "input_blocks has \(levels.map { "\($0.layers)" }.joined(separator: ", ")) residual blocks in"
                    + " its levels, expected the same number in each, with attention in all or none")
        }

        // Middle
        _ = try module.resnet("middle_block.0", "mid_block.resnets.0")
        _ = try module.attention("middle_block.1", "mid_block.attentions.0", headChannels)
        _ = try module.resnet("middle_block.2", "mid_block.resnets.1")

        // Up
        for level in levels.indices {
            for layer in 0...layers {
                let (old, block) = ("output_blocks.\(level * (layers + 1) + layer)", "up_blocks.\(level)")
                _ = try module.resnet("\(old).0", "\(block).resnets.\(layer)")
                let attends = try module.attention("\(old).1", "\(block).attentions.\(layer)", headChannels)
                module.layer("\(old).\(attends ? 2 : 1).conv", "\(block).upsamplers.0.conv")
            }
        }
        try module.checkComplete(as: "UNet2DModel")

        let attends = levels.map { $0.attentions > 0 }
        var keys: JSONObject = [
            "sample_size": sampleSize.map { .integer($0) } ?? .null,
            "in_channels": .integer(input[1]), "out_channels": .integer(output[0]),
            "block_out_channels": .array(levels.map { .integer($0.channels) }),
            "layers_per_block": .integer(layers),
            "down_block_types": .array(attends.map { $0 ? "AttnDownBlock2D" : "DownBlock2D" }),
            "up_block_types": .array(attends.reversed().map { $0 ? "AttnUpBlock2D" : "UpBlock2D" }),
            "attention_head_dim": headChannels.map { .integer($0) } ?? .null,
            "resnet_time_scale_shift": isScaleShift ? "scale_shift" : "default",
            // diffusers has no norm there for scale_shift unless it is given.
            "attn_norm_num_groups": isScaleShift ? 32 : .null,
            "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0,
        ]
        if let classes { keys["num_class_embeds"] = .integer(classes) }
        config = try UNet2DConfig(config: ConfigNode(.object(keys), source: source.tensors.path), path: [])
        tensors = module.tensors
    }
}

extension RenamedModule {
    /// Maps a residual block.
    ///
    /// - Returns: its output channels.
    fileprivate mutating func resnet(_ old: String, _ new: String) throws -> Int {
        layer("\(old).in_layers.0", "\(new).norm1")
        layer("\(old).in_layers.2", "\(new).conv1")
        layer("\(old).emb_layers.1", "\(new).time_emb_proj")
        layer("\(old).out_layers.0", "\(new).norm2")
        layer("\(old).out_layers.3", "\(new).conv2")
        layer("\(old).skip_connection", "\(new).conv_shortcut")
        return try shape("\(old).out_layers.3.weight").first ?? 0
    }

    /// Maps self-attention, if there is any.
    ///
    /// - Returns: whether there is.
    fileprivate mutating func attention(_ old: String, _ new: String, _ headChannels: Int?) throws -> Bool {
        guard has("\(old).qkv.weight") else { return false }
        let rows = try shape("\(old).qkv.weight").first ?? 0
        let head = headChannels ?? rows / 3
        guard rows > 0, head > 0, rows % (3 * head) == 0 else {
            throw ModelFolderError(
                tensors.path,
                "\(prefix)\(old): \(rows / 3) channels are not divisible into attention heads of \(head);"
                    + " specify the model's original configuration with --config")
        }
        layer("\(old).norm", "\(new).group_norm")
        projection("\(old).qkv", new, headChannels: head)
        layer("\(old).proj_out", "\(new).to_out.0")
        return true
    }
}
