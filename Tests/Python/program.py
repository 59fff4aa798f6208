"""The program under test, used only through its command line. Tensors in files are NCHW, fp32."""

import json
import os
import pathlib
import subprocess

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DISTTRAIN", REPOSITORY / ".build/release/disttrain"))


def disttrain(*arguments):
    """Runs a command and returns its output. A failure shows the whole output."""
    command = [str(PROGRAM), *map(str, arguments)]
    result = subprocess.run(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True)
    assert result.returncode == 0, f"exit code {result.returncode}: {' '.join(command)}\n{result.stdout}"
    return result.stdout


def sample(model, noise, scratch, *options, steps=5, precision="fp32"):
    """Final scaled latents [N, C, H, W] of the U-Net, from `noise`; pictures are in `scratch`/pictures."""
    save_file({"noise": noise.contiguous()}, scratch / "noise.safetensors")
    disttrain(
        "sample", "--model", model, "--init-noise", scratch / "noise.safetensors", "--steps", steps,
        "--precision", precision, "--dump-latents", scratch / "latents.safetensors",
        "--output", scratch / "pictures", *options)
    return load_file(scratch / "latents.safetensors")["latents"]


def encode(model, image, scratch, precision="fp32"):
    """{latent_mean, latent_logvar}, or {latent} of a VQModel, for images [N, C, H, W] in [-1, 1]."""
    save_file({"image": image.contiguous()}, scratch / "image.safetensors")
    disttrain(
        "vae", "encode", "--model", model, "--precision", precision, scratch / "image.safetensors",
        "--output", scratch / "encoded.safetensors")
    return load_file(scratch / "encoded.safetensors")


def decode(model, latent, scratch, *options, precision="fp32"):
    """Images [N, C, H, W] for latents; with "--scaled" for the scaled latents of a U-Net."""
    save_file({"latent": latent.contiguous()}, scratch / "latent.safetensors")
    disttrain(
        "vae", "decode", "--model", model, "--precision", precision, scratch / "latent.safetensors",
        "--output", scratch / "decoded.safetensors", *options)
    return load_file(scratch / "decoded.safetensors")["image"]


def predict(unet, noise, timestep, scratch, precision="fp32"):
    """Output of the U-Net in folder `unet` for samples `noise` at one timestep.

    Uses a single DDIM step: if the model predicts the sample and ᾱ ends at 1, the step returns the model's output
    unchanged. The schedule ends at `timestep`, which is therefore the step's timestep.
    """
    pipeline = scratch / f"evaluation-{timestep}-{precision}"
    (pipeline / "scheduler").mkdir(parents=True)
    (pipeline / "unet").symlink_to(unet, target_is_directory=True)
    index = {
        "_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"]}
    scheduler = {
        "_class_name": "DDIMScheduler", "num_train_timesteps": timestep + 1, "prediction_type": "sample",
        "clip_sample": False}
    (pipeline / "model_index.json").write_text(json.dumps(index))
    (pipeline / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    return sample(pipeline, noise, scratch, "--spacing", "trailing", steps=1, precision=precision)


def pictures(folder):
    """The samples' PNG files [N, C, H, W], levels 0 to 255; C is 1 for grayscale files."""
    levels = [numpy.atleast_3d(numpy.array(Image.open(file))) for file in sorted(folder.glob("sample_*.png"))]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in levels])
