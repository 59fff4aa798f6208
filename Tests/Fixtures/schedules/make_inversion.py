#!/usr/bin/env python3
"""Writes inversion.json: DDIM run backwards as diffusers' DDIMInverseScheduler computes it.

Needs torch and diffusers (made with diffusers 0.42.1, torch 2.15). Run it in this folder; the output is committed.
"""

import itertools
import json

import numpy as np
import torch
from diffusers import DDIMInverseScheduler

STEPS, WIDTH = 4, 5


def numbers(tensor):
    """fp32 values with the shortest digits that read back as the same fp32."""
    return [float(str(value)) for value in np.asarray(tensor, dtype=np.float32).reshape(-1)]


def case(schedule, spacing, offset, prediction, to_one, clip):
    torch.manual_seed(len(schedule) + offset)
    scheduler = DDIMInverseScheduler(
        beta_schedule=schedule, timestep_spacing=spacing, steps_offset=offset, prediction_type=prediction,
        set_alpha_to_one=to_one, clip_sample=clip,
    )
    scheduler.set_timesteps(STEPS)
    sample = torch.randn(WIDTH)
    outputs = torch.randn(STEPS, WIDTH)
    trajectory, x = [], sample
    for timestep, output in zip(scheduler.timesteps.tolist(), outputs):
        x = scheduler.step(output, timestep, x).prev_sample
        trajectory.append(numbers(x))
    return {
        "schedule": schedule, "spacing": spacing, "offset": offset, "prediction": prediction, "to_one": to_one,
        "clip": clip, "timesteps": scheduler.timesteps.tolist(), "sample": numbers(sample),
        "outputs": [numbers(row) for row in outputs], "trajectory": trajectory,
    }


def main():
    cases = [
        case(schedule, spacing, offset, prediction, to_one, clip)
        for schedule, (spacing, offset), (prediction, to_one), clip in itertools.product(
            ["linear", "scaled_linear", "squaredcos_cap_v2"],
            [("leading", 0), ("leading", 1), ("trailing", 0)],
            [("epsilon", True), ("epsilon", False), ("v_prediction", True), ("sample", False)],
            [False, True],
        )
    ]
    with open("inversion.json", "w") as file:
        rows = ",\n".join(json.dumps(row) for row in cases)
        file.write(f"[\n{rows}\n]\n")


main()
