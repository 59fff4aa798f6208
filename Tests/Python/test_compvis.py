"""Weights in PyTorch's files, checkpoints of CompVis' latent-diffusion, and averages of diffusers."""

import json
import math

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DModel, VQModel
from diffusers.models.attention_processor import Attention
from diffusers.training_utils import EMAModel

import compvis
from figures import check
from program import disttrain, predict
from reference import quiet, randomized

BLOCKS = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(32, 64), layers_per_block=2, attention_head_dim=32, sample_size=16)
ENCODER = dict(
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    block_out_channels=(32, 64), layers_per_block=1, sample_size=32)
ORIGINAL = """
model:
  params:
    linear_start: 0.0015
    linear_end: 0.0195
    unet_config: {params: {image_size: 16, num_head_channels: 32}}
    first_stage_config: {params: {ddconfig: {resolution: 32}}}
"""


def network(seed, channels=3):
    return randomized(UNet2DModel(**BLOCKS, in_channels=channels, out_channels=channels), seed)


def first_stage(kind, seed):
    if kind == "kl":
        return randomized(AutoencoderKL(**ENCODER, latent_channels=4, scaling_factor=1.0), seed)
    return randomized(VQModel(**ENCODER, latent_channels=3, num_vq_embeddings=16, scaling_factor=1.0), seed)


def same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_combined_projection_is_that_of_compvis(seed):
    """QKVAttentionLegacy of openaimodel.py with the combined weights, and diffusers' attention, agree."""
    torch.manual_seed(seed)
    channels, width = 64, 32
    attention = Attention(
        channels, heads=channels // width, dim_head=width, norm_num_groups=32, bias=True, residual_connection=True,
        _from_deprecated_attn_block=True)
    x = torch.randn(2, channels, 4, 4)
    weight = compvis.combined([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight], width)
    bias = compvis.combined([attention.to_q.bias, attention.to_k.bias, attention.to_v.bias], width)
    flat = attention.group_norm(x).reshape(2, channels, -1)
    qkv = torch.nn.functional.conv1d(flat, weight[..., None], bias)
    q, k, v = qkv.reshape(2 * channels // width, 3 * width, -1).split(width, dim=1)
    scale = 1 / math.sqrt(math.sqrt(width))
    shares = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
    out = torch.einsum("bts,bcs->bct", shares, v).reshape(2, channels, -1)
    out = torch.nn.functional.conv1d(out, attention.to_out[0].weight[..., None], attention.to_out[0].bias)
    check("CompVis: attention", out.reshape(x.shape) + x, attention(x), 1e-5)


@pytest.mark.parametrize("kind", ["kl", "vq"])
@pytest.mark.parametrize("averaged", [True, False])
def test_latent_diffusion_checkpoint(kind, averaged, tmp_path, seed):
    unet, stage = network(seed, 4 if kind == "kl" else 3), first_stage(kind, seed)
    state = {"state_dict": compvis.checkpoint(unet, stage, averaged), "epoch": 1}
    torch.save(state, tmp_path / "model.ckpt")
    (tmp_path / "config.yaml").write_text(ORIGINAL)
    disttrain("convert", tmp_path / "model.ckpt", "--output", tmp_path / "converted")
    with quiet():
        pipeline = DiffusionPipeline.from_pretrained(tmp_path / "converted")
    same_weights(pipeline.unet, unet)
    same_weights(pipeline.vqvae, stage)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    check("CompVis: betas", pipeline.scheduler.betas, betas, 1e-6)
    assert pipeline.vqvae.config.scaling_factor == 1
    noise = torch.randn(2, unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = unet(noise, 500).sample
    check("CompVis: U-Net's output", predict(tmp_path / "converted/unet", noise, 500, tmp_path), expected, 1e-5)


def test_autoencoder_checkpoint(tmp_path, seed):
    stage = first_stage("kl", seed)
    torch.save(compvis.checkpoint(first_stage=stage), tmp_path / "kl.pt")
    disttrain("convert", tmp_path / "kl.pt", "--output", tmp_path / "kl")
    same_weights(AutoencoderKL.from_pretrained(tmp_path / "kl"), stage)


@pytest.mark.parametrize("layout", ["bin", "sharded bin", "half", "lightning", "data parallel"])
def test_files_of_torch(layout, tmp_path, seed):
    """The same output as with safetensors, for each layout of files."""
    unet = network(seed)
    if layout == "half":
        unet = unet.half().float()
    folder = tmp_path / "unet"
    if layout in ("bin", "sharded bin"):
        unet.save_pretrained(folder, safe_serialization=False, max_shard_size="500KB" if "sharded" in layout else "5GB")
        assert (folder / "diffusion_pytorch_model.bin.index.json").exists() == ("sharded" in layout)
    else:
        unet.save_config(folder)
        state = (unet.half() if layout == "half" else unet).state_dict()
        if layout == "lightning":
            state = {"state_dict": state, "epoch": 3, "optimizer_states": [{"lr": 1e-4, "betas": (0.9, 0.99)}]}
        if layout == "data parallel":
            state = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save(state, folder / "weights.ckpt")
        unet = unet.float()
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = unet(noise, 300).sample
    output = predict(folder, noise, 300, tmp_path)
    check(f"PyTorch's files: {layout}", output, expected, 1e-5)
    unet.save_pretrained(tmp_path / "safe")
    assert torch.equal(output, predict(tmp_path / "safe", noise, 300, tmp_path / "again"))


def test_average_of_diffusers(tmp_path, seed):
    unet = network(seed)
    average = EMAModel(
        unet.parameters(), decay=0.999, use_ema_warmup=True, model_cls=UNet2DModel, model_config=unet.config)
    average.step(unet.parameters())
    average.save_pretrained(tmp_path / "unet_ema")
    assert "optimization_step" in json.loads((tmp_path / "unet_ema/config.json").read_text())
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = UNet2DModel.from_pretrained(tmp_path / "unet_ema")(noise, 100).sample
    check("diffusers' average", predict(tmp_path / "unet_ema", noise, 100, tmp_path), expected, 1e-5)
