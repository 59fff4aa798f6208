# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "diffusers==0.42.1", "numpy==2.4.6"]
# ///
"""Generates the golden values of inpainting: diffusers' RePaintScheduler, run as RePaintPipeline does.

    python Tests/Fixtures/schedules/make_repaint.py
"""

import json
import pathlib

import torch
from diffusers import RePaintScheduler
from diffusers.schedulers import scheduling_repaint

STEPS = 12
SIZE = 5


def numbers(tensor):
    return [float(f"{value:.9g}") for value in tensor.flatten().tolist()]


def case(seed, jump_length, jump_n_sample, eta, clip, steps=STEPS):
    generator = torch.Generator().manual_seed(seed)
    scheduler = RePaintScheduler(num_train_timesteps=STEPS, beta_start=0.01, beta_end=0.3, eta=eta, clip_sample=clip)
    scheduler.set_timesteps(steps, jump_length, jump_n_sample)
    draw = lambda: torch.randn(1, SIZE, generator=generator)
    known, sample = draw().clamp(-1, 1), draw()
    mask = (torch.arange(SIZE) % 2 == 0).float()[None]  # 1: known
    start, moves = sample, []
    last = scheduler.timesteps[0] + 1
    for t in scheduler.timesteps:
        noise, output = draw(), draw()
        scheduling_repaint.randn_tensor = lambda *_, **__: noise
        if t < last:
            sample = scheduler.step(output, t, sample, known, mask).prev_sample
            moves.append({"denoise": int(t), "output": numbers(output), "noise": numbers(noise), "sample": numbers(sample)})
        else:
            sample = scheduler.undo_step(sample, last)
            moves.append({"renoise": int(last), "noise": numbers(noise), "sample": numbers(sample)})
        last = t
    return {
        "steps": steps, "jump_length": jump_length, "jump_n_sample": jump_n_sample, "eta": eta, "clip": clip,
        "known": numbers(known), "mask": numbers(mask), "start": numbers(start), "moves": moves}


if __name__ == "__main__":
    cases = [
        case(1, 3, 2, 1.0, True), case(2, 5, 3, 1.0, False), case(3, 4, 2, 0.0, True), case(4, 20, 4, 1.0, True),
        case(5, 1, 2, 1.0, False)]
    path = pathlib.Path(__file__).parent / "repaint.json"
    path.write_text(json.dumps({"timesteps": STEPS, "beta_start": 0.01, "beta_end": 0.3, "cases": cases}) + "\n")
