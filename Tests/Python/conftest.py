"""Options, the runs that several tests share, and the table of figures at the end."""

import random

import pytest

import figures
from program import PROGRAM, REPOSITORY, disttrain


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="of everything random; printed, so that a failure can be repeated")
    parser.addoption("--cases", type=int, default=6, help="random configurations of each kind (default 6)")


def pytest_configure(config):
    if config.option.seed is None:
        config.option.seed = random.randrange(1_000_000)


def pytest_report_header(config):
    return f"program {PROGRAM}, --seed {config.option.seed} --cases {config.option.cases}"


def pytest_terminal_summary(terminalreporter, config):
    lines = list(figures.table())
    if lines:
        terminalreporter.section(f"figures, --seed {config.option.seed}")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def seed(request):
    return request.config.option.seed


@pytest.fixture(scope="session")
def scratch_root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def pixel_run(scratch_root):
    """60 steps of configs/tiny.yaml, with two averages."""
    run = scratch_root / "pixel"
    disttrain(
        "train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run,
        *settings(
            "train.steps=60", "train.checkpoint_every=30", "train.sample_every=0", "data.count=200",
            "ema.decays=[0.5,0.99]"))
    return run


@pytest.fixture(scope="session")
def first_stage_run(scratch_root):
    """A first stage of f = 4 on 32×32 pixels, barely trained."""
    run = scratch_root / "first_stage"
    disttrain(
        "vae", "train", "--config", REPOSITORY / "configs/vae_quickstart.yaml", "--output", run,
        *settings(
            "data.size=32", "data.count=200", "model.block_out_channels=[8,16,16]", "model.norm_num_groups=4",
            "train.steps=60", "train.batch_size=8", "train.sample_every=0", "optimizer.warmup_steps=5"))
    return run


@pytest.fixture(scope="session")
def latent_run(scratch_root, first_stage_run):
    """A U-Net on the latents of that first stage."""
    latents = scratch_root / "latents"
    disttrain(
        "prepare", "synthetic-faces:200", "--size", 32, "--first-stage", first_stage_run / "model",
        "--output", latents)
    run = scratch_root / "latent"
    disttrain(
        "train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run,
        *settings(
            f"data.path={latents}", "data.size=null", "data.count=null", f"first_stage.path={first_stage_run}/model",
            "model.sample_size=8", "model.in_channels=4", "model.out_channels=4", "train.steps=60",
            "train.checkpoint_every=30", "train.sample_every=0"))
    return run


def settings(*assignments):
    """A --set option for each setting."""
    return [word for assignment in assignments for word in ("--set", assignment)]
