# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "diffusers==0.42.1", "safetensors==0.8.0", "numpy==2.4.6"]
# ///
"""Generates the golden cases of models with diffusers: tiny models of every variant (docs/fixtures.md: unet,
autoencoder_kl, vq_model), one folder per case in models/.

    python Tests/Fixtures/cases/make_models.py

Autoencoders of the kind KL also contain the gradients of sum(moments*grad_moments) +
sum(reconstruction*grad_reconstruction): grad_moments, grad_reconstruction, grad.NAME.
"""

import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parent / "models"

UNET = dict(
    sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 12), layers_per_block=1,
    norm_num_groups=4, attention_head_dim=4,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
UNETS = {
    "unet_attention": dict(UNET, block_out_channels=(8, 16), attention_head_dim=8),
    "unet_no_attention": dict(
        UNET, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False, in_channels=4, out_channels=2),
    "unet_ddpm": dict(  # the settings of google/ddpm-cifar10-32
        UNET, time_embedding_dim=16, block_out_channels=(8, 8, 12), layers_per_block=2,
        attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
    "unet_scale_shift": dict(
        UNET, resnet_time_scale_shift="scale_shift", mid_block_scale_factor=1.5, center_input_sample=True),
    "unet_odd_groups": dict(
        UNET, block_out_channels=(6, 12), norm_num_groups=3, attn_norm_num_groups=6, attention_head_dim=3,
        time_embedding_dim=20, mid_block_scale_factor=2.0, sample_size=(8, 6)),
    "unet_no_mid_block": dict(UNET, mid_block_type=None),
    "unet_old_names": dict(UNET, resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2),
    "unet_classes": dict(UNET, num_class_embeds=5),
    "unet_class_timestep": dict(UNET, class_embed_type="timestep", resnet_time_scale_shift="scale_shift"),
}
KL = dict(
    block_out_channels=(8, 12), layers_per_block=1, latent_channels=3, norm_num_groups=4, sample_size=16,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
)
AUTOENCODERS = {
    "kl_f2": KL,
    "kl_f8_plain": dict(
        KL, block_out_channels=(4, 8, 8, 8), norm_num_groups=2, latent_channels=4, use_quant_conv=False,
        use_post_quant_conv=False, mid_block_add_attention=False, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
    "kl_old_names": dict(
        KL, block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",)),
}
VQ = {
    "vq": dict(KL, num_vq_embeddings=24, vq_embed_dim=2),
}


def randomized(model, seed, scale=0.1):
    """Adds noise to every parameter: norms are initialized with 1 and 0, which would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval(), generator


def write(folder, kind, model, tensors, dtype=torch.float32, shards="10GB"):
    """A case of a model, whose weights are stored in `dtype`, in files of at most `shards`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps({"kind": kind}) + "\n")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "case.safetensors")
    # Last, since this converts the gradients as well.
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)


def size_of(config):
    """Height and width of a U-Net's samples."""
    size = config["sample_size"]
    return size if isinstance(size, tuple) else (size, size)


def gradients(model):
    return {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}


def make_unet(folder, config, seed, timesteps=(3, 871), scale=0.1, dtype=torch.float32, **stored):
    torch.manual_seed(seed)
    model, generator = randomized(UNet2DModel(**config), seed, scale)
    model.to(dtype).float()
    sample = torch.randn(len(timesteps), model.config.in_channels, *size_of(config), generator=generator)
    sample.requires_grad_()
    timestep = torch.tensor(timesteps)
    labels = {}
    if model.class_embedding is not None:
        classes = config.get("num_class_embeds") or 10
        labels = dict(class_labels=torch.randint(classes, timestep.shape, generator=generator))
    output = model(sample, timestep, **labels).sample
    grad_output = torch.randn(output.shape, generator=generator)
    output.backward(grad_output)
    write(
        folder, "unet", model,
        dict(
            sample=sample, timestep=timestep, **labels, output=output, grad_output=grad_output,
            grad_sample=sample.grad, **gradients(model)),
        dtype, **stored)


def make_kl(folder, config, seed, images=(2, 16, 16), scale=0.1, dtype=torch.float32, **stored):
    """With `images` [B, H, W]."""
    torch.manual_seed(seed)
    model, generator = randomized(AutoencoderKL(**config), seed, scale)
    model.to(dtype).float()
    image = random_images(images, model.config.in_channels, generator)
    posterior = model.encode(image).latent_dist
    reconstruction = model.decode(posterior.mean.detach()).sample
    grad_moments = torch.randn(posterior.parameters.shape, generator=generator)
    grad_reconstruction = torch.randn(reconstruction.shape, generator=generator)
    ((posterior.parameters * grad_moments).sum() + (reconstruction * grad_reconstruction).sum()).backward()
    write(
        folder, "autoencoder_kl", model,
        dict(
            image=image, latent_mean=posterior.mean, latent_logvar=posterior.logvar,
            reconstruction=reconstruction, grad_moments=grad_moments,
            grad_reconstruction=grad_reconstruction, **gradients(model)),
        dtype, **stored)


def make_vq(folder, config, seed, images=(2, 16, 16), dtype=torch.float32, **stored):
    """With `images` [B, H, W]."""
    torch.manual_seed(seed)
    model, generator = randomized(VQModel(**config), seed)
    with torch.no_grad():
        model.quantize.embedding.weight.normal_(generator=generator)
        model.to(dtype).float()
        image = random_images(images, model.config.in_channels, generator)
        latent = model.encode(image).latents
        write(
            folder, "vq_model", model,
            dict(image=image, latent=latent, reconstruction=model.decode(latent).sample), dtype, **stored)


def random_images(shape, channels, generator):
    """[B, C, H, W] in [-1, 1] for `shape` [B, H, W]."""
    batch, height, width = shape
    return torch.randn(batch, channels, height, width, generator=generator).clamp(-1, 1)


def give_old_names(folder, convolutions=False):
    """Renames attention weights to what diffusers wrote before 0.14, when they may have been 1×1 convolutions."""
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for key, value in load_file(path).items():
        for new, old in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]:
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{old}.")
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None]
        tensors[key] = value.contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


if __name__ == "__main__":
    for seed, (name, config) in enumerate(UNETS.items()):
        make_unet(ROOT / name, config, seed, shards="60KB" if name == "unet_no_attention" else "10GB")
    for seed, (name, config) in enumerate(AUTOENCODERS.items(), start=20):
        make_kl(ROOT / name, config, seed)
    for seed, (name, config) in enumerate(VQ.items(), start=40):
        make_vq(ROOT / name, config, seed)
    give_old_names(ROOT / "unet_old_names")
    give_old_names(ROOT / "kl_old_names", convolutions=True)
    total = sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file())
    print(f"{total / 1e6:.2f} MB in {ROOT}")
