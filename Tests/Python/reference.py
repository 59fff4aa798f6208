"""diffusers' side: models with random weights, and its pipelines run from given noise."""

import contextlib
import logging
import pathlib
import sys
import unittest.mock

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from program import REPOSITORY

# The scripts that generate the golden cases.
sys.path.insert(0, str(REPOSITORY / "Tests/Fixtures/cases"))
from make_models import give_old_names  # noqa: E402, F401: for the tests

WEIGHTS = "diffusion_pytorch_model.safetensors"
# Where each pipeline draws its initial noise.
NOISE_OF = {
    "DDIMPipeline": "diffusers.pipelines.ddim.pipeline_ddim",
    "LDMPipeline": "diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond",
}


def randomized(model, seed):
    """Adds noise to every parameter: norms are initialized with 1 and 0, which would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def seeded(seed, *shape):
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def latents_by_ddim(unet, scheduler, noise, steps, **changes):
    """Deterministic DDIM with the configuration of any scheduler: final latents [N, C, H, W]."""
    ddim = DDIMScheduler.from_config(scheduler.config, **changes)
    ddim.set_timesteps(steps)
    latents = noise
    for t in ddim.timesteps:
        latents = ddim.step(unet(latents, t).sample, t, latents).prev_sample
    return latents


@torch.no_grad()
def latents_by(scheduler, unet, noise, steps):
    """The scheduler's own sampling loop, as diffusers' pipelines run it: final latents [N, C, H, W]."""
    scheduler.set_timesteps(steps)
    # Rounding may yield the first timestep twice. Without this call, the second one would be taken for the first.
    scheduler.set_begin_index(0)
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = unet(scheduler.scale_model_input(latents, t), t).sample
        latents = scheduler.step(output, t, latents).prev_sample
    return latents


def images_of(pipeline, noise, steps):
    """The pipeline's own __call__ from given noise: images [N, 3, H, W] in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    module = NOISE_OF[type(pipeline).__name__]
    with unittest.mock.patch(f"{module}.randn_tensor", return_value=noise.clone()):
        images = pipeline(batch_size=len(noise), num_inference_steps=steps, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def old_names_of(folder):
    """The number of tensors in a folder with old names."""
    return sum(".proj_attn." in key for key in load_file(pathlib.Path(folder) / WEIGHTS))


@contextlib.contextmanager
def quiet():
    """Suppresses diffusers' warning that an LDMPipeline's autoencoder is an AutoencoderKL, which is tested here."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
