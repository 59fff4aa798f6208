"""Names of CompVis' latent-diffusion for the weights of diffusers' models.

Follows ldm/modules/diffusionmodules/openaimodel.py and model.py of github.com/CompVis/latent-diffusion.
"""

import torch

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def combined(weights, head_width):
    """[C, …] of query, key and value to [3·C, …]: for each head its query, key and value."""
    parts = [part.reshape(-1, head_width, *part.shape[1:]) for part in weights]
    return torch.stack(parts, 1).reshape(-1, *weights[0].shape[1:])


def unet(model):
    """{CompVis' name: (tensor, names in diffusers)} of a UNet2DModel."""
    state = model.state_dict()
    layers = model.config.layers_per_block
    out = {}

    def put(old, new):
        for kind in ("weight", "bias"):
            if f"{new}.{kind}" in state:
                out[f"{old}.{kind}"] = state[f"{new}.{kind}"], [f"{new}.{kind}"]

    def put_resnet(old, new):
        for name, place in RESNET.items():
            put(f"{old}.{place}", f"{new}.{name}")

    def put_attention(old, new):
        if f"{new}.to_q.weight" not in state:
            return False
        put(f"{old}.norm", f"{new}.group_norm")
        for kind in ("weight", "bias"):
            names = [f"{new}.to_{letter}.{kind}" for letter in "qkv"]
            tensor = combined([state[name] for name in names], model.config.attention_head_dim)
            out[f"{old}.qkv.{kind}"] = tensor[..., None] if kind == "weight" else tensor, names
        out[f"{old}.proj_out.weight"] = state[f"{new}.to_out.0.weight"][..., None], [f"{new}.to_out.0.weight"]
        out[f"{old}.proj_out.bias"] = state[f"{new}.to_out.0.bias"], [f"{new}.to_out.0.bias"]
        return True

    put("time_embed.0", "time_embedding.linear_1")
    put("time_embed.2", "time_embedding.linear_2")
    put("input_blocks.0.0", "conv_in")
    place = 1
    levels = len(model.config.block_out_channels)
    for level in range(levels):
        for layer in range(layers):
            put_resnet(f"input_blocks.{place}.0", f"down_blocks.{level}.resnets.{layer}")
            put_attention(f"input_blocks.{place}.1", f"down_blocks.{level}.attentions.{layer}")
            place += 1
        if level < levels - 1:
            put(f"input_blocks.{place}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            place += 1
    put_resnet("middle_block.0", "mid_block.resnets.0")
    put_attention("middle_block.1", "mid_block.attentions.0")
    put_resnet("middle_block.2", "mid_block.resnets.1")
    place = 0
    for level in range(levels):
        for layer in range(layers + 1):
            put_resnet(f"output_blocks.{place}.0", f"up_blocks.{level}.resnets.{layer}")
            attends = put_attention(f"output_blocks.{place}.1", f"up_blocks.{level}.attentions.{layer}")
            if layer == layers:
                put(f"output_blocks.{place}.{1 + attends}.conv", f"up_blocks.{level}.upsamplers.0.conv")
            place += 1
    put("out.0", "conv_norm_out")
    put("out.2", "conv_out")
    assert len({name for _, names in out.values() for name in names}) == len(state)
    return out


def autoencoder(model):
    """{CompVis' name: (tensor, names in diffusers)} of an AutoencoderKL or a VQModel."""
    state = model.state_dict()
    levels = len(model.config.block_out_channels)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    out = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        words = rest.split(".")
        kind = words[-1]
        if words[0] in ("down_blocks", "up_blocks"):
            block = "down" if words[0] == "down_blocks" else "up"
            level = int(words[1]) if block == "down" else levels - 1 - int(words[1])
            if words[2] == "resnets":
                layer = words[4].replace("conv_shortcut", "nin_shortcut")
                old = f"{part}.{block}.{level}.block.{words[3]}.{layer}.{kind}"
            else:
                old = f"{part}.{block}.{level}.{block}sample.conv.{kind}"
        elif words[0] == "mid_block" and words[1] == "resnets":
            old = f"{part}.mid.block_{int(words[2]) + 1}.{words[3]}.{kind}"
        elif words[0] == "mid_block":
            layer = attention[".".join(words[3:-1])]
            old = f"{part}.mid.attn_1.{layer}.{kind}"
            if layer != "norm" and kind == "weight":
                tensor = tensor[..., None, None]
        else:
            old = name.replace("conv_norm_out", "norm_out")
        out[old] = tensor, [name]
    return out


def checkpoint(network=None, first_stage=None, averaged=True):
    """The state dict of a LatentDiffusion. With an average, the weights proper are halved."""
    state = {}
    if network is not None:
        for name, (tensor, _) in unet(network).items():
            full = f"model.diffusion_model.{name}"
            state[full] = tensor / 2 if averaged else tensor
            if averaged:
                state["model_ema." + full.removeprefix("model.").replace(".", "")] = tensor
        if averaged:
            state["model_ema.decay"], state["model_ema.num_updates"] = torch.tensor(0.9999), torch.tensor(7)
        betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
        state["betas"] = betas.float()
        state["alphas_cumprod"] = torch.cumprod(1 - betas, 0).float()
    prefix = "" if network is None else "first_stage_model."
    for name, (tensor, _) in ({} if first_stage is None else autoencoder(first_stage)).items():
        state[prefix + name] = tensor
    if first_stage is not None:
        state[prefix + "loss.logvar"] = torch.zeros(())
    return state
