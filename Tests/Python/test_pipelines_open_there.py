"""diffusers opens models trained by this program, and samples from the same noise agree."""

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DModel

from figures import check, largest
from program import decode, disttrain, pictures, sample
from reference import images_of, latents_by_ddim, quiet, seeded

STEPS = 20


@pytest.fixture(params=["pixel", "latent"])
def run(request):
    """A run's folder."""
    return request.getfixturevalue(f"{request.param}_run")


def opened(folder):
    with quiet():
        return DiffusionPipeline.from_pretrained(folder)


def noise_for(unet, seed, count=3):
    size = unet.config.sample_size
    return seeded(seed, count, unet.config.in_channels, size, size)


def test_samples_agree_after_decoding(run, tmp_path, seed):
    pipeline = opened(run / "model")
    noise = noise_for(pipeline.unet, seed)
    latents = sample(run / "model", noise, tmp_path, steps=STEPS)
    expected = latents_by_ddim(pipeline.unet, pipeline.scheduler, noise, STEPS)
    check(f"{run.name} run: latents of {STEPS} DDIM steps", latents, expected, 1e-4)

    images = latents
    if hasattr(pipeline, "vqvae"):
        images = decode(run / "model", latents, tmp_path, "--scaled")
    images = (images / 2 + 0.5).clamp(0, 1)
    expected = images_of(pipeline, noise, STEPS)
    check(f"{run.name} run: decoded samples in [0, 1]", images, expected, 1e-3, largest)
    check(
        f"{run.name} run: PNG files, levels", pictures(tmp_path / "pictures"), (expected * 255).round(), 1, largest)


def test_checkpoint_folders_open(run, tmp_path, seed):
    checkpoint = run / "checkpoints/step-00000060"
    folders = [f for f in sorted(checkpoint.iterdir()) if f.name == "unet" or f.name.startswith("ema-")]
    assert len(folders) == (3 if run.name == "pixel" else 2), folders
    scheduler = DDIMScheduler.from_pretrained(run / "model/scheduler")
    outputs = []
    for folder in folders:
        unet = UNet2DModel.from_pretrained(folder)
        noise = noise_for(unet, seed)
        scratch = tmp_path / folder.name
        scratch.mkdir()
        found = sample(folder, noise, scratch, steps=5)
        outputs.append(found)
        check(f"{run.name} run: {folder.name} of a checkpoint", found, latents_by_ddim(unet, scheduler, noise, 5), 1e-5)
    for other in outputs[1:]:
        assert (outputs[0] - other).abs().max() > 1e-3, "raw and averaged weights give the same samples"


def test_the_pipeline_holds_the_slowest_average(run):
    checkpoint = run / "checkpoints/step-00000060"
    slowest = max(checkpoint.glob("ema-*"), key=lambda folder: float(folder.name[4:]))
    averaged = UNet2DModel.from_pretrained(slowest).state_dict()
    for name, value in opened(run / "model").unet.state_dict().items():
        assert torch.equal(value, averaged[name]), name


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_exports_open(run, weights, tmp_path, seed):
    """`checkpoint export` creates a complete pipeline from any checkpoint: step 30 is not the last."""
    checkpoint = run / "checkpoints/step-00000030"
    slowest = max(checkpoint.glob("ema-*"), key=lambda folder: float(folder.name[4:]))
    folder = checkpoint / "unet" if weights == "raw" else slowest
    exported = tmp_path / "exported"
    disttrain("checkpoint", "export", "--model", checkpoint, "--weights", folder.name, "--output", exported)
    pipeline = opened(exported)
    expected = UNet2DModel.from_pretrained(folder).state_dict()
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value, expected[name]), name
    noise = noise_for(pipeline.unet, seed)
    check(
        f"{run.name} run: exported {weights} weights, latents", sample(exported, noise, tmp_path),
        latents_by_ddim(pipeline.unet, pipeline.scheduler, noise, 5), 1e-5)
