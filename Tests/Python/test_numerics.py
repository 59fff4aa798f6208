"""A run in bf16 reaches the same loss as the same run in fp32."""

import json
import os

import torch

from conftest import settings
from figures import note
from program import REPOSITORY, disttrain

STEPS = 500
WINDOW = 50  # smoothing: the mean of the last 50 steps' losses


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(found) == list(range(1, STEPS + 1)), f"expected the loss of {STEPS} steps, found {len(found)}"
    return torch.tensor([found[step] for step in sorted(found)], dtype=torch.float64)


def smoothed(values):
    return values.unfold(0, WINDOW, 1).mean(1)


def test_bf16_stays_within_2_percent_of_fp32(tmp_path):
    curves = {}
    for precision in ("fp32", "bf16"):
        run = tmp_path / precision
        disttrain(
            "train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run,
            *settings(
                f"train.precision={precision}", f"train.steps={STEPS}", "train.log_every=1",
                "train.sample_every=0", "train.checkpoint_every=0", "model.block_out_channels=[32,64,64]",
                "model.down_block_types=[DownBlock2D,AttnDownBlock2D,AttnDownBlock2D]",
                "model.up_block_types=[AttnUpBlock2D,AttnUpBlock2D,UpBlock2D]", "model.attention_head_dim=32"))
        curves[precision] = smoothed(losses(run))
    fp32, bf16 = curves["fp32"], curves["bf16"]
    assert fp32[-1] < 0.5 * fp32[0], f"the loss decreased only from {fp32[0]:.4f} to {fp32[-1]:.4f}"
    assert not torch.equal(fp32, bf16), "the two runs are identical"
    deviation = (bf16 - fp32).abs() / fp32
    worst = int(deviation.argmax())
    note(f"bf16 run of {STEPS} steps, loss in windows of {WINDOW}", "largest", deviation[worst].item(), 0.02)
    assert deviation[worst] <= 0.02, (
        f"at step {worst + WINDOW} the smoothed loss is {bf16[worst]:.5f} in bf16 and {fp32[worst]:.5f} in fp32: "
        f"{deviation[worst]:.2%} apart, expected 2 %")
