"""Class-conditional U-Nets and classifier-free guidance: the latents agree with a DDIM loop of diffusers. The golden-case
suites compare outputs and gradients of conditional U-Nets (test_random_cases.py)."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from figures import check
from program import sample
from reference import randomized, seeded

STEPS = 8
CLASSES = 4


def conditional_unet(seed, **conditioning):
    torch.manual_seed(seed)
    return randomized(
        UNet2DModel(
            sample_size=16, in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=8, attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), **conditioning), seed)


@torch.no_grad()
def guided_latents(unet, scheduler, noise, labels, scale, null_class):
    """Ho and Salimans (2022), as diffusers' conditional pipelines compute it."""
    scheduler.set_timesteps(STEPS)
    x = noise
    for t in scheduler.timesteps:
        output = unet(x, t, class_labels=labels).sample
        if scale != 1:
            without = unet(x, t, class_labels=torch.full_like(labels, null_class)).sample
            output = without + scale * (output - without)
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("scale", [1, 2.5])
def test_guided_samples_agree(scale, tmp_path, seed):
    unet = conditional_unet(seed, num_class_embeds=CLASSES + 1)
    scheduler = DDIMScheduler(clip_sample=False)
    DDIMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    noise = seeded(seed + 1, 5, 3, 16, 16)
    classes = [3, 0, 1]
    found = sample(
        tmp_path / "pipeline", noise, tmp_path, "--class", ",".join(map(str, classes)), "--guidance-scale", scale,
        "--null-class", CLASSES, steps=STEPS)
    labels = torch.tensor([classes[i % len(classes)] for i in range(5)])
    check("guided latents", found, guided_latents(unet, scheduler, noise, labels, scale, CLASSES), 1e-4)


def test_classes_embedded_like_timesteps(tmp_path, seed):
    unet = conditional_unet(seed, class_embed_type="timestep")
    scheduler = DDIMScheduler(clip_sample=False)
    DDIMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    noise = seeded(seed + 1, 2, 3, 16, 16)
    found = sample(tmp_path / "pipeline", noise, tmp_path, "--class", "7", steps=STEPS)
    check("latents", found, guided_latents(unet, scheduler, noise, torch.tensor([7, 7]), 1, None), 1e-4)
