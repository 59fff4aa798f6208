"""docs/checkpoint-format.md is sufficient to read a checkpoint: a reader written from it agrees with the program."""

import json
import os
import shutil
import subprocess

import numpy
import pytest
import torch
from diffusers import UNet2DModel

from conftest import settings
from program import PROGRAM, REPOSITORY, disttrain
from read_checkpoint import Damaged, crc32c, joined, read


@pytest.fixture(scope="module")
def checkpoint(scratch_root):
    """Two steps with two averages, as three ranks would have written them: every folder has shards."""
    run = scratch_root / "format"
    disttrain(
        "train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run,
        *settings(
            "train.steps=2", "train.sample_every=0", "data.count=64", "ema.decays=[0.5,0.9999]",
            "optimizer.warmup_steps=0", "model.block_out_channels=[8,16]", "model.attention_head_dim=8",
            "model.norm_num_groups=4"))
    disttrain("checkpoint", "reshard", run, "--ranks", 3, "--output", scratch_root / "three/checkpoints")
    return scratch_root / "three/checkpoints/step-00000002"


def test_checksums_are_those_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA
    text = bytes(range(256)) * 3
    for cut in (0, 1, 100, 768):
        assert joined(crc32c(text[:cut]), crc32c(text[cut:]), len(text) - cut) == crc32c(text)
        assert crc32c(text[cut:], crc32c(text[:cut])) == crc32c(text)


def test_a_checkpoint_reads_as_the_program_says(checkpoint):
    manifest, folders = read(checkpoint)
    assert json.loads(disttrain("checkpoint", "inspect", checkpoint, "--json")) == manifest
    assert list(folders) == ["unet", "ema-0.5", "ema-0.9999", "exp_avg", "exp_avg_sq"]
    assert (manifest["step"], manifest["samples_seen"], manifest["world_size"]) == (2, 32, 3)
    weights = [file for file in manifest["files"] if file["path"].endswith(".safetensors")]
    assert len(weights) == 3 * len(folders)
    assert manifest["metric"]["name"] == "loss" and manifest["metric"]["value"] > 0
    # The values are plausible: the average lags behind the weights, and second moments are squares.
    apart = [numpy.abs(folders["unet"][name] - average).max() for name, average in folders["ema-0.9999"].items()]
    assert 0 < max(apart) < 1
    assert all((moment >= 0).all() for moment in folders["exp_avg_sq"].values())


def test_the_table_cuts_the_flat_buffer(checkpoint):
    manifest, _ = read(checkpoint)
    end = 0
    for row in manifest["parameters"]:
        assert row["offset"] == (end + 15) // 16 * 16
        end = row["offset"] + int(numpy.prod(row["shape"]))


def test_every_folder_opens_in_diffusers(checkpoint):
    _, folders = read(checkpoint)
    for folder, tensors in folders.items():
        model = UNet2DModel.from_pretrained(checkpoint / folder)
        state = model.state_dict()
        assert state.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(state[name], torch.from_numpy(tensor.copy())), f"{folder} {name}"


@pytest.mark.parametrize("harm", ["data", "header", "small", "cut", "swap", "manifest"])
def test_what_one_side_refuses_the_other_does(checkpoint, tmp_path, harm):
    copy = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, copy)
    shards = sorted((copy / "exp_avg").glob("*.safetensors"))
    place, offset = {
        "data": (shards[1], -2), "header": (shards[1], 30), "small": (copy / "unet/config.json", 5),
        "manifest": (copy / "manifest.json", 100)}.get(harm, (shards[1], 0))
    if harm == "cut":
        os.truncate(place, place.stat().st_size - 1)
    elif harm == "swap":
        place.write_bytes((copy / "exp_avg_sq" / place.name).read_bytes())
    else:
        data = bytearray(place.read_bytes())
        data[offset] ^= 4
        place.write_bytes(data)
    with pytest.raises(Damaged):
        read(copy)
    result = subprocess.run([PROGRAM, "checkpoint", "verify", copy], capture_output=True, text=True)
    assert result.returncode == 3, result.stdout + result.stderr
    assert place.name in result.stdout
