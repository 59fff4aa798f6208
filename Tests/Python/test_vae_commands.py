"""`vae encode` and `vae decode` of .safetensors files, with image shapes that are unusual in training."""

import pytest
import torch
from diffusers import AutoencoderKL, VQModel

from figures import check
from program import decode, encode
from reference import randomized, seeded

ENCODER = dict(
    down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=4)
MODELS = {
    "AutoencoderKL": lambda: AutoencoderKL(**ENCODER, latent_channels=4),
    "AutoencoderKL without quant_conv": lambda: AutoencoderKL(
        **ENCODER, latent_channels=5, use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=False),
    "VQModel": lambda: VQModel(**ENCODER, latent_channels=3, vq_embed_dim=2, num_vq_embeddings=50),
}
# Multiples of f = 4 that are far from square and from powers of two.
SHAPES = [(1, 3, 4, 4), (2, 3, 20, 12), (3, 3, 28, 52), (1, 3, 100, 36)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_files_agree(name, shape, tmp_path, seed):
    torch.manual_seed(seed)
    model = randomized(MODELS[name](), seed)
    if name == "VQModel":
        model.quantize.embedding.weight.normal_(generator=torch.Generator().manual_seed(seed))
    model.save_pretrained(tmp_path / "model")
    image = seeded(seed, *shape).clamp(-1, 1)
    encoded = encode(tmp_path / "model", image, tmp_path)
    what = f"{name} {'×'.join(map(str, shape))}"
    if name == "VQModel":
        assert set(encoded) == {"latent"}
        latent = model.encode(image).latents
        check(f"{what}: latent", encoded["latent"], latent, 1e-5)
    else:
        posterior = model.encode(image).latent_dist
        latent = posterior.mean
        check(f"{what}: mean", encoded["latent_mean"], latent, 1e-5)
        check(f"{what}: log-variance", encoded["latent_logvar"], posterior.logvar, 1e-5)
    check(f"{what}: reconstruction", decode(tmp_path / "model", latent, tmp_path), model.decode(latent).sample, 1e-5)
