"""Runs the golden-case tests on random configurations, and on published ones at their real size:
outputs and every gradient, on every backend, in fp32 and bf16 (docs/fixtures.md)."""

import os
import random
import subprocess

import diffusers

import configurations
import reference  # noqa: F401: finds the scripts that make cases
from program import REPOSITORY
from published import UNETS

import make_models
import make_trajectories

SUITES = ["swift", "test", "-c", "release", "--disable-testable-imports", "--filter"]


def walk(folder, suites="Fixture", *options):
    """Runs the golden-case suites on the cases in `folder`; a failure shows their messages about it."""
    environment = dict(os.environ, DISTTRAIN_FIXTURES=str(folder))
    environment.setdefault("OMP_NUM_THREADS", "1")
    result = subprocess.run(
        [*SUITES, suites, *options], cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    said = [line for line in result.stdout.splitlines() if "✘" in line or "error:" in line or "Test run" in line]
    assert result.returncode == 0, "\n".join([f"exit code {result.returncode}", *said])
    assert any("passed" in line for line in said), result.stdout[-2000:]


def test_random_configurations(tmp_path, seed, request):
    draw = random.Random(seed)
    for number in range(request.config.option.cases):
        case = draw.randrange(1 << 30)
        make_models.make_unet(
            tmp_path / f"unet_{number}", configurations.unet(draw), case, scale=0.03,
            timesteps=[draw.randrange(1000) for _ in range(draw.randint(1, 3))])
        kl, vq = configurations.autoencoder_kl(draw), configurations.vq_model(draw)
        make_models.make_kl(
            tmp_path / f"kl_{number}", kl, case, (draw.randint(1, 2), *configurations.image_size(kl, draw)), scale=0.03)
        make_models.make_vq(
            tmp_path / f"vq_{number}", vq, case, (draw.randint(1, 2), *configurations.image_size(vq, draw)))
        # Cheap, so there are more of them.
        for variant in range(5):
            name, config, steps, eta = configurations.scheduler(draw)
            make_trajectories.make_scheduler(
                tmp_path / f"scheduler_{number}_{variant}", getattr(diffusers, name)(**config), steps, eta, case)
    # In models with few channels, the rounding errors of bf16 do not average out: PyTorch's own exceed 2e-2, too.
    walk(tmp_path, "Fixture", "--skip", "bfloat16")


def test_published_models_at_their_real_size(tmp_path, seed):
    for name, (build, parameters) in UNETS.items():
        config = dict(build().config)
        make_models.make_unet(tmp_path / name, config, seed, timesteps=(321,), scale=0)
        assert sum(parameter.numel() for parameter in build().parameters()) == parameters
        walk(tmp_path / name, "FixtureUNet")
