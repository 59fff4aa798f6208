"""Samples pipelines that diffusers wrote, with files of any type, naming and number."""

import pytest
import torch
from diffusers import (
    AutoencoderKL, DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline,
    DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, LDMPipeline, UNet2DModel,
    UniPCMultistepScheduler, VQModel)
from safetensors.torch import load_file

from figures import check, largest
from program import decode, pictures, sample
from reference import (
    WEIGHTS, give_old_names, images_of, latents_by, latents_by_ddim, old_names_of, quiet, randomized, seeded)

STEPS = 10
# Clipping x₀ makes the trajectory of a random model chaotic: PyTorch in fp32 then differs from fp64 by 1e-4 to 1.
# Steps with clipping are compared one by one, in the golden cases of kind `scheduler`.
STABLE = dict(clip_sample=False)
BLOCKS = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8)
ENCODER = dict(
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32)


def unet(channels, seed):
    torch.manual_seed(seed)
    config = dict(BLOCKS, sample_size=16, in_channels=channels, out_channels=channels)
    return randomized(UNet2DModel(**config), seed)


def ldm(autoencoder, channels, seed):
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, **STABLE)
    with quiet():
        return LDMPipeline(vqvae=randomized(autoencoder, seed), unet=unet(channels, seed), scheduler=scheduler)


def make_pipeline(name, seed):
    torch.manual_seed(seed)
    if name == "DDIMPipeline, grayscale":
        return DDIMPipeline(unet(1, seed), DDIMScheduler(**STABLE))
    if name == "LDMPipeline, grayscale":
        model = AutoencoderKL(**ENCODER, in_channels=1, out_channels=1, latent_channels=2, scaling_factor=0.6)
        return ldm(model, 2, seed)
    if name == "DDPMPipeline":
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_large", **STABLE)
        return DDPMPipeline(unet(3, seed), scheduler)
    if name == "DDIMPipeline":
        return DDIMPipeline(unet(3, seed), DDIMScheduler(set_alpha_to_one=False, steps_offset=1, **STABLE))
    if name == "LDMPipeline with VQModel":
        model = VQModel(**ENCODER, latent_channels=3, num_vq_embeddings=64, scaling_factor=0.8)
        # The initial codes are so close together that rounding would decide between them.
        torch.nn.init.normal_(model.quantize.embedding.weight)
        return ldm(model, 3, seed)
    return ldm(AutoencoderKL(**ENCODER, latent_channels=4, scaling_factor=0.4), 4, seed)


NAMES = [
    "DDPMPipeline", "DDIMPipeline", "LDMPipeline with VQModel", "LDMPipeline with AutoencoderKL",
    "DDIMPipeline, grayscale", "LDMPipeline, grayscale"]
FILES = ["fp32", "fp16", "fp16 variant", "bf16", "sharded", "old attention names"]


def write(pipeline, files, folder):
    """Saves the pipeline, and returns it as diffusers reads it back, in fp32."""
    parts = [name for name in ("unet", "vqvae") if hasattr(pipeline, name)]
    types = {"fp16": torch.float16, "fp16 variant": torch.float16, "bf16": torch.bfloat16}
    if files in types:
        pipeline.to(dtype=types[files])
    variant = "fp16" if files == "fp16 variant" else None
    if files == "sharded":
        pipeline.save_pretrained(folder, max_shard_size="30KB")
        for part in parts:
            assert len(list((folder / part).glob("*-of-*.safetensors"))) > 1, f"{part} was not sharded"
    else:
        pipeline.save_pretrained(folder, variant=variant)
    if files in types:
        stored = load_file(next((folder / "unet").glob("*.safetensors")))
        assert all(value.dtype == types[files] for value in stored.values())
    if files == "old attention names":
        for part in parts:
            give_old_names(folder / part, convolutions=part == "vqvae")
            assert old_names_of(folder / part) > 0
        return pipeline
    with quiet():
        return DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, variant=variant)


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("name", NAMES)
def test_samples_agree(name, files, tmp_path, seed):
    folder = tmp_path / "pipeline"
    pipeline = write(make_pipeline(name, seed), files, folder)
    noise = seeded(seed + 1, 2, pipeline.unet.config.in_channels, 16, 16)
    # DDPM's pipeline draws its own noise at every step, so its U-Net and schedule are tested with DDIM.
    expected = latents_by_ddim(pipeline.unet, pipeline.scheduler, noise, STEPS)
    latents = sample(folder, noise, tmp_path, steps=STEPS)
    check(f"{name}, {files}: latents", latents, expected, 1e-4)
    if name == "DDPMPipeline":
        return
    images = latents
    if hasattr(pipeline, "vqvae"):
        images = decode(folder, latents, tmp_path, "--scaled")
    expected = images_of(pipeline, noise, STEPS)
    check(f"{name}, {files}: images in [0, 1]", (images / 2 + 0.5).clamp(0, 1), expected, 1e-3, largest)
    check(f"{name}, {files}: PNG files, levels", pictures(tmp_path / "pictures"), (expected * 255).round(), 1, largest)


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_the_pipelines_own_spacing(spacing, tmp_path, seed):
    """scheduler_config.json determines the timesteps at which a model is sampled."""
    folder = tmp_path / "pipeline"
    pipeline = DDIMPipeline(unet(3, seed), DDIMScheduler(timestep_spacing=spacing, **STABLE))
    pipeline.save_pretrained(folder)
    noise = seeded(seed, 2, 3, 16, 16)
    check(
        f"DDIMPipeline, {spacing} timesteps: latents", sample(folder, noise, tmp_path, steps=STEPS),
        latents_by_ddim(pipeline.unet, pipeline.scheduler, noise, STEPS), 1e-4)


SCHEDULERS = {
    "dpmpp-2m": lambda: DPMSolverMultistepScheduler(),
    "dpmpp-3m": lambda: DPMSolverMultistepScheduler(solver_order=3, use_karras_sigmas=True),
    "unipc": lambda: UniPCMultistepScheduler(timestep_spacing="trailing", solver_order=3),
    "heun": lambda: HeunDiscreteScheduler(beta_schedule="scaled_linear"),
    "euler": lambda: EulerDiscreteScheduler(beta_schedule="scaled_linear", use_karras_sigmas=True),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_class_in_the_file_selects_the_sampler(name, tmp_path, seed):
    """A pipeline with another scheduler reproduces diffusers' result from the same noise."""
    folder = tmp_path / "pipeline"
    pipeline = DDPMPipeline(unet(3, seed), SCHEDULERS[name]())
    pipeline.save_pretrained(folder)
    noise = seeded(seed, 2, 3, 16, 16)
    expected = latents_by(SCHEDULERS[name](), pipeline.unet, noise, 20)
    check(f"{name}, 20 steps: latents", sample(folder, noise, tmp_path, steps=20), expected, 1e-3)
    # Selecting the sampler by its name changes nothing.
    check(
        f"--sampler {name}, 20 steps: latents", sample(folder, noise, tmp_path, "--sampler", name, steps=20),
        expected, 1e-3)


def test_a_trained_model_with_dpm_solver(pixel_run, tmp_path, seed):
    """An exported pipeline, to which diffusers gives a DPMSolverMultistepScheduler, reproduces its images."""
    pipeline = DDIMPipeline.from_pretrained(pixel_run / "model")
    scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    folder = tmp_path / "pipeline"
    DDPMPipeline(pipeline.unet, scheduler).save_pretrained(folder)
    size = pipeline.unet.config.sample_size
    noise = seeded(seed, 2, 3, *([size, size] if isinstance(size, int) else size))
    latents = sample(folder, noise, tmp_path, steps=20)
    check(
        "trained model, DPM-Solver++, 20 steps: latents", latents,
        latents_by(DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler"), pipeline.unet, noise, 20),
        1e-3)
    check(
        "trained model, --sampler dpmpp-2m --karras: latents",
        sample(pixel_run / "model", noise, tmp_path, "--sampler", "dpmpp-2m", "--karras", steps=20), latents, 1e-3)
