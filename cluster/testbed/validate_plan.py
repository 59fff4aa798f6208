#!/usr/bin/env python3
"""Does `disttrain plan` tell the truth? Predicted and measured steps on shaped networks, one rank a host.

    sudo cluster/testbed/validate_plan.py                  all networks, some minutes each
    sudo cluster/testbed/validate_plan.py --only 1gbit     those whose name contains a word; --list names them

For each network: computing is timed with as many ranks as there will be, all on one host, none waiting for another;
`bench allreduce` measures α, β and γ between the hosts; `plan` predicts from these alone; `bench step` measures. All
hosts share the processors of this machine: where there are fewer cores than ranks, computing is slower than on hosts of
their own, in what is predicted and in what is measured alike. Computing is timed before and after: where the two differ,
something else was running, and all is measured once more.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE))

from hosts import Cluster

PROGRAM = REPOSITORY / ".build/release/disttrain"
SMALL = """
name: small
data: {path: synthetic-faces, size: 32}
model:
    sample_size: 32
    in_channels: 4
    out_channels: 4
    block_out_channels: [64, 128, 256]
    layers_per_block: 2
    down_block_types: [DownBlock2D, AttnDownBlock2D, AttnDownBlock2D]
    up_block_types: [AttnUpBlock2D, AttnUpBlock2D, UpBlock2D]
    attention_head_dim: 32
ema: {decays: []}
train: {steps: 1000, batch_size: 8}
"""
# Bandwidth, latency in ms of outgoing traffic of a host, ranks, model, images per rank, steps, gradient types.
CASES = [
    ("1gbit", 0, 2, "unet_70m", 8, 5, ["fp32", "bf16"]),
    ("300mbit", 2, 2, "unet_70m", 8, 3, ["fp32", "bf16"]),
    ("1gbit", 2, 2, "small", 8, 9, ["fp32", "bf16"]),
    ("100mbit", 0, 2, "small", 8, 5, ["fp32", "bf16"]),
    ("1gbit", 0, 3, "small", 8, 9, ["fp32", "bf16"]),
    ("300mbit", 5, 3, "small", 8, 5, ["fp32", "bf16"]),
    ("300mbit", 0, 4, "small", 8, 5, ["fp32", "bf16"]),
    ("100mbit", 5, 4, "small", 8, 3, ["fp32", "bf16"]),
    ("100mbit", 0, 8, "small", 2, 3, ["fp32", "bf16"]),
]


TRIES = 4
STEADY = 0.1  # computing may differ by so much before and after a measurement


def name(case):
    return f"{case[0]}-{case[1]}ms-{case[2]}x{case[3]}"


def last_line(text):
    """The line of JSON among what mpirun and the program print."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        sys.exit(f"validate_plan: no JSON in: {text}")
    return lines[-1]


class Lab:
    """Runs the program on the hosts of a cluster."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.folder = cluster.folder / "shared"
        (self.folder / "small.yaml").write_text(SMALL)

    def config(self, model):
        return self.folder / "small.yaml" if model == "small" else REPOSITORY / f"configs/{model}.yaml"

    def ranks(self, arguments, hosts, ranks_per_host=1):
        command = self.cluster.mpirun([PROGRAM, *arguments], hosts=hosts, ranks_per_host=ranks_per_host,
                                      options=["--oversubscribe", "-x", "OMP_NUM_THREADS=1", "-x", "OMP_WAIT_POLICY"])
        done = self.cluster.run(0, command, timeout=600, check=True,
                                env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"})
        return last_line(done.stdout)

    def plan(self, model, batch, *options):
        return ["plan", "--config", self.config(model), "--set", "ema.decays=[]", "--batch-per-rank", batch,
                "--disk", "1G", "--json", *options]

    def compute(self, model, batch, ranks):
        """What computing takes when none waits for another, and the file that tells plan."""
        self.cluster.shape()
        text = self.ranks(self.plan(model, batch, "--hosts", 1), [0], ranks)
        path = self.folder / "compute.json"
        path.write_text(text)
        return path, json.loads(text)["compute"]["profiles"][0]["pass_seconds"]

    def step(self, case, dtype):
        """The network, the prediction and the measurement: of a time when the machine had nothing else to do."""
        bandwidth, latency, ranks, model, batch, steps, _ = case
        network = self.folder / "network.json"
        for _ in range(TRIES):
            compute, before = self.compute(model, batch, ranks)
            self.cluster.shape(bandwidth=bandwidth, latency_ms=latency)
            network.write_text(self.ranks(["bench", "allreduce", "--largest", 1, "--json"], range(ranks)))
            measured = json.loads(self.ranks(["bench", "step", "--unet", self.config(model), "--batch", batch, "--steps",
                                              steps, "--reduce-dtype", dtype, "--json"], range(ranks)))
            options = ["--hosts", ranks, "--ranks-per-host", 1, "--measured", compute, "--network", network,
                       "--reduce-dtype", dtype]
            done = subprocess.run([PROGRAM, *map(str, self.plan(model, batch, *options))], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"validate_plan: plan: {done.stderr}")
            _, after = self.compute(model, batch, ranks)
            if abs(after / before - 1) < STEADY:
                break
            print(f"computing took {before:.3f} s before and {after:.3f} s after: once more", file=sys.stderr, flush=True)
        else:
            print("the machine is not quiet: the next line tells little", file=sys.stderr, flush=True)
        return json.loads(network.read_text()), json.loads(done.stdout), measured


def describe(case, network, plan, measured, dtype, verbose):
    row = plan["rows"][0]
    predicted, found = row["step_seconds"], measured["seconds_per_step"]
    error = 100 * (predicted / found - 1)
    link = network["network"]
    print(f"| {case[0]}, {case[1]} ms | {8e-6 / link['seconds_per_byte']:.0f} Mbit/s, {2e3 * link['latency_seconds']:.2f} ms "
          f"| {case[2]} | {case[3]} | {dtype} | {100 * row['communication_share']:.0f} % | {predicted:.3f} | {found:.3f} "
          f"| {error:+.1f} % |", flush=True)
    if verbose:
        print("  predicted", {key: round(value, 3) for key, value in row["parts"].items()})
        print("  measured", {key: value["seconds"] for key, value in measured["breakdown"].items()},
              measured["fastest_seconds"], measured["slowest_seconds"])
        print("  network", {key: f"{value:.3g}" for key, value in link.items()}, flush=True)
    return abs(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--gradients", default="", help="fp32 or bf16 alone")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="also where the seconds went")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.only in name(case)]
    if not chosen:
        parser.error(f"--only {arguments.only}: no network is called so; --list names them")
    if arguments.list:
        print("\n".join(map(name, chosen)))
        return 0
    os.environ.pop("OPENBLAS_CORETYPE", None)
    print("| network | measured: bandwidth, round trip | ranks | model | gradients | communication | predicted, s "
          "| measured, s | error |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    errors = []
    with Cluster(max(case[2] for case in chosen)) as cluster:
        lab = Lab(cluster)
        for case in chosen:
            for dtype in case[6]:
                if arguments.gradients in ("", dtype):
                    errors.append(describe(case, *lab.step(case, dtype), dtype, arguments.verbose))
    print(f"{sum(error <= 15 for error in errors)} of {len(errors)} within 15 %, the largest error {max(errors):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
