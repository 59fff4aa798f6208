#!/usr/bin/env python3
"""Writes names.json: for each tensor of latent-diffusion checkpoints its shape, and its names in diffusers.

Needs torch and diffusers 0.42.
"""
import json
import pathlib
import sys

from diffusers import AutoencoderKL, UNet2DModel, VQModel

folder = pathlib.Path(__file__).parent
sys.path.insert(0, str(folder.parent.parent / "Python"))
import compvis

ENCODER = dict(
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(32, 32),
    layers_per_block=1)
models = {
    "unet": compvis.unet(UNet2DModel(
        sample_size=16, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), block_out_channels=(32, 64), layers_per_block=1,
        attention_head_dim=32)),
    "vq": compvis.autoencoder(VQModel(**ENCODER, latent_channels=3, num_vq_embeddings=16)),
    "kl": compvis.autoencoder(AutoencoderKL(**ENCODER, latent_channels=3)),
}
table = {
    model: [[name, list(tensor.shape), names] for name, (tensor, names) in tensors.items()]
    for model, tensors in models.items()}
lines = (f' "{model}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "]" for model, rows in table.items())
(folder / "names.json").write_text("{\n" + ",\n".join(lines) + "}\n")
