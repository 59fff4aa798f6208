# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "diffusers==0.42.1", "safetensors==0.8.0", "numpy==2.4.6"]
# ///
"""Generates the golden cases with several steps (docs/fixtures.md: scheduler, ddim, training), one folder per
case in schedulers/, ddim/ and training/.

    python Tests/Fixtures/cases/make_trajectories.py
"""

import copy
import json
import pathlib
import shutil

import torch
from diffusers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler, HeunDiscreteScheduler, UNet2DModel, UniPCMultistepScheduler)
from diffusers.optimization import get_scheduler
from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete
from diffusers.training_utils import EMAModel, compute_snr
from safetensors.torch import save_file

from make_models import UNET, randomized, size_of

ROOT = pathlib.Path(__file__).parent
STEPS = 50
TINY = dict(UNET, block_out_channels=(4, 8), norm_num_groups=2)

# Folder, scheduler, num_inference_steps, eta.
SCHEDULERS = {
    "ddim_linear": (DDIMScheduler(), 10, 0.0),
    "ddim_ldm": (  # the settings of CompVis/ldm-celebahq-256
        DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1), 50, 0.0),
    "ddim_cosine_ancestral": (
        DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample=False), 10, 1.0),
    "ddim_zero_snr": (
        DDIMScheduler(
            beta_schedule="scaled_linear", rescale_betas_zero_snr=True, prediction_type="v_prediction",
            timestep_spacing="trailing", clip_sample=False), 12, 0.3),
    "ddim_sample_linspace": (
        DDIMScheduler(
            num_train_timesteps=200, prediction_type="sample", timestep_spacing="linspace",
            clip_sample_range=2.0), 7, 0.5),
    "ddpm_linear": (DDPMScheduler(), 10, 0.0),
    "ddpm_cosine_large": (
        DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_large", clip_sample=False), 10, 0.0),
    "ddpm_sigmoid": (DDPMScheduler(beta_schedule="sigmoid", prediction_type="sample"), 10, 0.0),
    "dpm_2m": (DPMSolverMultistepScheduler(), 10, 0.0),
    "dpm_1m_leading": (
        DPMSolverMultistepScheduler(solver_order=1, timestep_spacing="leading", steps_offset=1), 10, 0.0),
    "dpm_2m_heun_sample": (
        DPMSolverMultistepScheduler(
            solver_type="heun", prediction_type="sample", timestep_spacing="leading", steps_offset=1,
            final_sigmas_type="sigma_min", lower_order_final=False), 12, 0.0),
    "dpm_3m_karras_velocity": (
        DPMSolverMultistepScheduler(
            solver_order=3, use_karras_sigmas=True, prediction_type="v_prediction", beta_schedule="scaled_linear",
            timestep_spacing="trailing"), 20, 0.0),
    "dpm_3m_few": (DPMSolverMultistepScheduler(solver_order=3, beta_schedule="squaredcos_cap_v2"), 6, 0.0),
    "dpm_2m_sde": (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", euler_at_final=True), 16, 0.0),
    "dpm_2m_sde_zero_snr": (
        DPMSolverMultistepScheduler(
            algorithm_type="sde-dpmsolver++", solver_type="heun", prediction_type="v_prediction",
            rescale_betas_zero_snr=True, timestep_spacing="trailing"), 10, 0.0),
    "dpm_3m_sde_clipped": (
        DPMSolverMultistepScheduler(
            algorithm_type="sde-dpmsolver++", solver_order=3, beta_schedule="squaredcos_cap_v2",
            lambda_min_clipped=-5.1, final_sigmas_type="sigma_min"), 12, 0.0),
    "unipc_2": (UniPCMultistepScheduler(), 10, 0.0),
    "unipc_3_karras_bh1": (
        UniPCMultistepScheduler(
            solver_order=3, solver_type="bh1", use_karras_sigmas=True, final_sigmas_type="sigma_min",
            prediction_type="v_prediction"), 10, 0.0),
    "unipc_3_noise": (
        UniPCMultistepScheduler(
            solver_order=3, predict_x0=False, final_sigmas_type="sigma_min", timestep_spacing="leading",
            disable_corrector=[0, 2]), 8, 0.0),
    "unipc_sample_zero_snr": (
        UniPCMultistepScheduler(
            prediction_type="sample", rescale_betas_zero_snr=True, timestep_spacing="trailing",
            lower_order_final=False, final_sigmas_type="sigma_min"), 8, 0.0),
    "unipc_noise_velocity": (
        UniPCMultistepScheduler(
            predict_x0=False, final_sigmas_type="sigma_min", prediction_type="v_prediction",
            use_karras_sigmas=True, beta_schedule="scaled_linear", sigma_min=0.02, sigma_max=60.0), 9, 0.0),
    "heun": (HeunDiscreteScheduler(), 6, 0.0),
    "heun_karras_velocity": (
        HeunDiscreteScheduler(
            beta_schedule="scaled_linear", use_karras_sigmas=True, prediction_type="v_prediction",
            timestep_spacing="leading", steps_offset=1), 6, 0.0),
    "heun_sample_clipped": (
        HeunDiscreteScheduler(
            prediction_type="sample", timestep_spacing="trailing", clip_sample=True, clip_sample_range=0.8), 5, 0.0),
    "euler": (EulerDiscreteScheduler(), 10, 0.0),
    "euler_karras_zero_snr": (
        EulerDiscreteScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
            use_karras_sigmas=True), 10, 0.0),
    "euler_log_linear": (
        EulerDiscreteScheduler(
            prediction_type="sample", interpolation_type="log_linear", timestep_spacing="leading"), 8, 0.0),
    "euler_karras_bounds": (
        EulerDiscreteScheduler(
            beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True, sigma_min=0.05, sigma_max=40.0,
            final_sigmas_type="sigma_min"), 8, 0.0),
    "euler_ancestral": (EulerAncestralDiscreteScheduler(), 10, 0.0),
    "euler_ancestral_velocity": (
        EulerAncestralDiscreteScheduler(
            prediction_type="v_prediction", beta_schedule="scaled_linear", timestep_spacing="leading",
            steps_offset=1), 7, 0.0),
}


def write(path, case, tensors, scheduler=None, unet=None):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    if unet is not None:
        unet.save_pretrained(path / "unet")
    if scheduler is not None:
        scheduler.save_pretrained(path if unet is None else path / "scheduler")
    (path / "case.json").write_text(json.dumps(case, indent=2) + "\n")
    save_file({name: value.detach().clone() for name, value in tensors.items()}, path / "case.safetensors")


def normal(generator, *shape):
    return torch.randn(shape, generator=generator)


def chain(scheduler, eta, sample, output, noises):
    """The samples before the first and after every step."""
    if hasattr(scheduler, "set_begin_index"):
        # Rounding may yield the first timestep twice. Without this, the second one would be taken for the first.
        scheduler.set_begin_index(0)
    samples = [sample * scheduler.init_noise_sigma]
    for index, t in enumerate(scheduler.timesteps):
        sample = samples[-1]
        options = {}
        if isinstance(scheduler, DDIMScheduler):
            options = dict(eta=eta, variance_noise=noises[index] if eta > 0 else None)
        elif isinstance(scheduler, DPMSolverMultistepScheduler):
            options = dict(variance_noise=noises[index])
        for module in (scheduling_ddpm, scheduling_euler_ancestral_discrete):
            module.randn_tensor = lambda *_, **__: noises[index]
        predicted = output(index, t, scheduler.scale_model_input(sample, t))
        samples.append(scheduler.step(predicted, t, sample, **options).prev_sample)
    return torch.stack(samples)


def make_scheduler(folder, scheduler, steps, eta, seed):
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    shape = (1, 2, 3, 4)
    # Heun's method evaluates the model twice per step.
    evaluations = len(scheduler.timesteps)
    outputs, noises = normal(generator, evaluations, *shape), normal(generator, evaluations, *shape)
    samples = chain(scheduler, eta, normal(generator, *shape), lambda index, *_: outputs[index], noises)
    write(
        folder, {"kind": "scheduler", "num_inference_steps": steps, "eta": eta},
        dict(
            alphas_cumprod=scheduler.alphas_cumprod, timesteps=scheduler.timesteps, model_output=outputs,
            variance_noise=noises, sample_before=samples[:-1], sample_after=samples[1:]),
        scheduler=scheduler)


@torch.no_grad()
def make_ddim(folder, scheduler, eta, seed, config=TINY, steps=STEPS):
    torch.manual_seed(seed)
    unet, generator = randomized(UNet2DModel(**config), seed)
    scheduler.set_timesteps(steps)
    init_noise = normal(generator, 2, unet.config.in_channels, *size_of(config))
    tensors = {}
    if eta > 0:
        tensors["variance_noise"] = normal(generator, steps, *init_noise.shape)
    samples = chain(
        scheduler, eta, init_noise, lambda _, t, sample: unet(sample, t).sample, tensors.get("variance_noise"))
    write(
        folder, {"kind": "ddim", "num_inference_steps": steps, "eta": eta},
        dict(tensors, init_noise=init_noise, sample=samples[-1], samples=samples[1:]),
        scheduler=scheduler, unet=unet)


def make_training(folder, case, scheduler, seed, config=TINY):
    """A training loop like that of diffusers' examples, on latents with some image structure."""
    torch.manual_seed(seed)
    unet, generator = randomized(UNet2DModel(**config), seed)
    initial = copy.deepcopy(unet)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=case["learning_rate"], betas=case["betas"], eps=case["eps"],
        weight_decay=case["weight_decay"])
    schedule = get_scheduler(
        case["lr_schedule"], optimizer, num_warmup_steps=case["warmup_steps"], num_training_steps=STEPS)
    average = EMAModel(unet.parameters(), decay=case["ema_decay"])
    if not case["ema_warmup"]:
        average.get_decay = lambda _: case["ema_decay"]

    channels = unet.config.in_channels
    latents = 0.5 * normal(generator, STEPS, 2, channels, 1, 1)
    latents = latents + 0.3 * normal(generator, STEPS, 2, channels, *size_of(config))
    noises = normal(generator, *latents.shape)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (STEPS, 2), generator=generator)
    losses, norms, rates = [], [], []
    for latent, noise, timestep in zip(latents, noises, timesteps):
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latent, noise, timestep)
        if scheduler.config.prediction_type == "sample":
            target = latent
        predicted = unet(scheduler.add_noise(latent, noise, timestep), timestep).sample
        if case.get("min_snr_gamma"):
            # As in diffusers' examples; for `sample`, as equation 8 of Hang et al. 2023.
            snr = compute_snr(scheduler, timestep)
            weight = torch.clamp(snr, max=case["min_snr_gamma"])
            if scheduler.config.prediction_type == "v_prediction":
                weight = weight / (snr + 1)
            elif scheduler.config.prediction_type == "epsilon":
                weight = weight / snr
            errors = torch.nn.functional.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))
            loss = (weight * errors).mean()
        else:
            loss = torch.nn.functional.mse_loss(predicted, target)
        optimizer.zero_grad()
        loss.backward()
        limit = case["clip_norm"] if case["clip_norm"] is not None else float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(unet.parameters(), limit))
        losses.append(loss)
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        average.step(unet.parameters())

    names = [parameter for parameter, _ in unet.named_parameters()]
    tensors = dict(
        latent=latents, noise=noises, timestep=timesteps, loss=torch.stack(losses), grad_norm=torch.stack(norms),
        lr=torch.tensor(rates))
    tensors |= {f"param.{n}": value for n, value in zip(names, unet.parameters())}
    tensors |= {f"ema.{n}": value for n, value in zip(names, average.shadow_params)}
    write(folder, {"kind": "training", **case}, tensors, scheduler=scheduler, unet=initial)
    print(f"{folder.name}: loss {losses[0]:.4f} to {losses[-1]:.4f}, gradient norms {min(norms):.3f} to {max(norms):.3f}")


TRAINING = {
    "warmup_constant": (
        dict(
            learning_rate=2e-3, lr_schedule="constant_with_warmup", warmup_steps=8, betas=[0.9, 0.999], eps=1e-8,
            weight_decay=0.0, clip_norm=1.0, ema_decay=0.95, ema_warmup=False),
        DDPMScheduler()),
    "cosine_velocity": (
        dict(
            learning_rate=2e-3, lr_schedule="cosine", warmup_steps=5, betas=[0.85, 0.98], eps=1e-6,
            weight_decay=0.05, clip_norm=None, ema_decay=0.9999, ema_warmup=True),
        DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")),
    "sample_sigmoid_snr": (
        dict(
            learning_rate=1e-3, lr_schedule="constant", warmup_steps=0, betas=[0.9, 0.999], eps=1e-8,
            weight_decay=0.0, clip_norm=1.0, ema_decay=0.9, ema_warmup=False, min_snr_gamma=5.0),
        DDPMScheduler(beta_schedule="sigmoid", prediction_type="sample")),
    "velocity_zero_snr": (
        dict(
            learning_rate=1e-3, lr_schedule="constant", warmup_steps=0, betas=[0.9, 0.999], eps=1e-8,
            weight_decay=0.0, clip_norm=1.0, ema_decay=0.9, ema_warmup=False, min_snr_gamma=5.0),
        DDPMScheduler(num_train_timesteps=60, prediction_type="v_prediction", rescale_betas_zero_snr=True)),
}

if __name__ == "__main__":
    for seed, (name, (scheduler, steps, eta)) in enumerate(SCHEDULERS.items(), start=60):
        make_scheduler(ROOT / "schedulers" / name, scheduler, steps, eta, seed)
    latent = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, clip_sample=False)
    make_ddim(ROOT / "ddim/ddim_50", latent, 0.0, 80)
    make_ddim(ROOT / "ddim/ddim_50_eta", DDIMScheduler(timestep_spacing="trailing"), 0.6, 81)
    for seed, (name, (case, scheduler)) in enumerate(TRAINING.items(), start=90):
        make_training(ROOT / "training" / name, case, scheduler, seed)
    for folder in ("schedulers", "ddim", "training"):
        size = sum(file.stat().st_size for file in (ROOT / folder).rglob("*") if file.is_file())
        print(f"{folder}: {size / 1e3:.0f} kB")
