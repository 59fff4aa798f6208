#!/usr/bin/env python3
"""Writes schedules.json: noise schedules and sampler steps as diffusers computes them.

Needs torch and diffusers (made with diffusers 0.42.1, torch 2.15). Run it in this folder; the output is committed.
"""

import itertools
import json

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
T, STEPS, WIDTH = 1000, 4, 5


def numbers(tensor):
    """fp32 values with the shortest digits that read back as the same fp32."""
    return [float(str(value)) for value in np.asarray(tensor, dtype=np.float32).reshape(-1)]


def tables():
    """alphas_cumprod: every 37th entry of T = 1000, all of T = 20, with and without rescaling."""
    out = []
    for schedule, count, zero in itertools.product(SCHEDULES, [T, 20, 1], [False, True]):
        if zero and count == 1:
            continue
        prediction = "v_prediction" if zero else "epsilon"
        scheduler = DDPMScheduler(
            num_train_timesteps=count, beta_schedule=schedule, rescale_betas_zero_snr=zero, prediction_type=prediction
        )
        indices = sorted(set(range(0, count, 37 if count > 100 else 1)) | {count - 1})
        out.append(
            {
                "schedule": schedule,
                "T": count,
                "zero_snr": zero,
                "indices": indices,
                "betas": numbers(scheduler.betas[indices]),
                "alphas_cumprod": numbers(scheduler.alphas_cumprod[indices]),
            }
        )
    return out


def timesteps():
    out = []
    for spacing, steps in itertools.product(SPACINGS, [1, 2, 3, 4, 7, 10, 33, 49, 50, 128]):
        for offset in [0, 1]:
            scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
            scheduler.set_timesteps(steps)
            values = scheduler.timesteps.tolist()
            if len(values) == steps:  # np.arange yields one too many for some counts of trailing spacing
                out.append({"spacing": spacing, "steps": steps, "offset": offset, "timesteps": values})
    return out


def noised(x0, noise):
    out = []
    for schedule, t in itertools.product(SCHEDULES, [0, 1, 500, 999]):
        scheduler = DDPMScheduler(beta_schedule=schedule)
        at = torch.tensor([t])
        out.append(
            {
                "schedule": schedule,
                "t": t,
                "noisy": numbers(scheduler.add_noise(x0, noise, at)),
                "velocity": numbers(scheduler.get_velocity(x0, noise, at)),
            }
        )
    return out


def chains(start, outputs, noises):
    """Whole sampling runs of a few steps; every step's result."""
    variants = [
        {"sampler": "ddim", "eta": 0.0, "clip_sample": True, "set_alpha_to_one": True},
        {"sampler": "ddim", "eta": 0.7, "clip_sample": False, "set_alpha_to_one": False},
        {"sampler": "ddim", "eta": 1.0, "clip_sample": False, "set_alpha_to_one": True},
        {"sampler": "ddpm", "variance_type": "fixed_small", "clip_sample": True},
        {"sampler": "ddpm", "variance_type": "fixed_large", "clip_sample": False},
        {"sampler": "ddpm", "variance_type": "fixed_small_log", "clip_sample": False},
    ]
    out = []
    for schedule, spacing, prediction, variant in itertools.product(SCHEDULES, SPACINGS, PREDICTIONS, variants):
        keys = {key: value for key, value in variant.items() if key not in ("sampler", "eta")}
        keys |= {"beta_schedule": schedule, "timestep_spacing": spacing, "prediction_type": prediction}
        is_ddim = variant["sampler"] == "ddim"
        scheduler = (DDIMScheduler if is_ddim else DDPMScheduler)(num_train_timesteps=T, **keys)
        scheduler.set_timesteps(STEPS)
        sample, results = start, []
        for index, t in enumerate(scheduler.timesteps):
            if is_ddim:
                noise = noises[index] if variant["eta"] > 0 else None
                step = scheduler.step(outputs[index], int(t), sample, eta=variant["eta"], variance_noise=noise)
            else:
                scheduling_ddpm.randn_tensor = lambda *_, **__: noises[index]
                step = scheduler.step(outputs[index], int(t), sample)
            sample = step.prev_sample
            results.append(numbers(sample))
        out.append(
            {"sampler": variant["sampler"], "eta": variant.get("eta", 0.0), "config": keys, "results": results}
        )
    return out


def main():
    torch.manual_seed(0)
    shape = (1, 1, 1, WIDTH)
    x0, noise, start = torch.rand(shape) * 2 - 1, torch.randn(shape), torch.randn(shape)
    outputs = [torch.randn(shape) for _ in range(STEPS)]
    noises = [torch.randn(shape) for _ in range(STEPS)]
    document = {
        "tables": tables(),
        "timesteps": timesteps(),
        "x0": numbers(x0),
        "noise": numbers(noise),
        "noised": noised(x0, noise),
        "start": numbers(start),
        "outputs": [numbers(value) for value in outputs],
        "noises": [numbers(value) for value in noises],
        "chains": chains(start, outputs, noises),
    }
    with open("schedules.json", "w") as file:
        json.dump(document, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
