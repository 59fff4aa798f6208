# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "diffusers==0.42.1"]
# ///
"""Writes the default configuration of each scheduler, as diffusers saves it, to defaults/CLASS.json.

    python Tests/Fixtures/schedules/make_defaults.py
"""

import pathlib

from diffusers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler)

CLASSES = (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler)

if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent / "defaults"
    folder.mkdir(exist_ok=True)
    for scheduler in CLASSES:
        (folder / f"{scheduler.__name__}.json").write_text(scheduler().to_json_string())
