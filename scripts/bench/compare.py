"""Runs ours and PyTorch in turns and prints a Markdown table of medians; scripts/bench.sh calls it.

Images a second of all ranks; for sampling, evaluations of the U-Net a second; for checkpoints, seconds. Where PyTorch can
be set up in several ways, all are run in the first round and the fastest goes on.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

import checkpoints

SCRIPTS = pathlib.Path(__file__).resolve().parent
REPOSITORY = SCRIPTS.parent.parent
DISTTRAIN = str(REPOSITORY / ".build/release/disttrain")
# These variables can restrict a library below what the processor supports, or give one side fewer threads.
UNWANTED = ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OMP_NUM_THREADS"]


@dataclasses.dataclass
class Row:
    """One command of ours and its counterpart; a command that reports twice makes two lines of the table."""

    section: str
    names: list
    bench: str  # disttrain bench BENCH
    model: str  # under configs/
    precision: str
    ranks: int
    threads: int
    batch: int
    variants: list = dataclasses.field(default_factory=lambda: [[]])  # PyTorch's further arguments

    def title(self, name):
        plural = "s" if self.threads > 1 else ""
        ranks = f"{self.ranks} rank{'s' if self.ranks > 1 else ''}"
        return f"{name}, {self.precision}, {ranks} × {self.threads} thread{plural}, {self.batch} a rank"


def rows():
    modes = [["--mode", "weights"], ["--mode", "autocast"]]

    def train(section, name, model, precision, ranks, threads, batch):
        return Row(section, [name], "step", model, precision, ranks, threads, batch)

    def sample(ranks, threads, batch):
        return Row("sample", ["sampling"], "sample", "unet_70m.json", "bf16", ranks, threads, batch, modes)

    return [
        train("train", "training", "unet_70m.json", "bf16", 2, 1, 16),
        train("train", "training", "unet_70m.json", "fp32", 2, 1, 16),
        train("train", "training", "unet_70m.json", "bf16", 1, 2, 32),
        train("train", "training", "unet_70m.json", "fp32", 1, 2, 32),
        train("train", "training", "unet_70m.json", "bf16", 1, 1, 16),
        sample(1, 2, 16),
        sample(2, 1, 8),
        Row("vae", ["VAE encode 256²", "VAE decode 256²"], "vae", "sd_vae_ft_mse.json", "bf16", 1, 2, 2,
            modes + [["--mode", "weights", "--slicing"]]),
        train("models", "training cifar10_pixel_32", "cifar10_pixel_32.yaml", "bf16", 2, 1, 16),
        train("models", "training ldm_celebahq_vq4", "ldm_celebahq_vq4.yaml", "bf16", 2, 1, 2),
    ]


class Runner:
    """Runs the commands of rows and keeps what they print."""

    program = DISTTRAIN

    def __init__(self, arguments, folder):
        self.count, self.log, self.folder = str(arguments.count), arguments.log, folder
        self.prefix = shlex.split(arguments.prefix)
        self.environment = {k: v for k, v in os.environ.items() if k not in UNWANTED}

    def run(self, command):
        """The lines of JSON that a command prints."""
        done = subprocess.run(
            self.prefix + command, env=self.environment, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            sys.exit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        if self.log:
            with open(self.log, "a") as file:
                file.writelines(line + "\n" for line in lines)
        return [json.loads(line) for line in lines]

    def ours(self, row):
        option, count = {
            "step": ("--unet", "--steps"), "sample": ("--unet", "--evaluations"), "vae": ("--vae", "--passes"),
        }[row.bench]
        bench = ["bench", row.bench, option, str(REPOSITORY / "configs" / row.model), "--precision", row.precision,
                 "--batch", str(row.batch), "--threads", str(row.threads), count, self.count, "--json"]
        if row.ranks == 1:
            return self.run([DISTTRAIN] + bench)
        launch = ["launch", "-n", str(row.ranks), "--threads", str(row.threads), "--"]
        return self.run([DISTTRAIN] + launch + bench)

    def peer(self, row, variant):
        script = {"step": "peer_train.py", "sample": "peer_sample.py", "vae": "peer_vae.py"}[row.bench]
        return self.torchrun(
            script, row.ranks, "--config", self.config(row.model), "--precision", row.precision,
            "--batch", str(row.batch), "--threads", str(row.threads), "--count", self.count, *variant)

    def torchrun(self, script, ranks, *arguments):
        command = [sys.executable]
        if ranks > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        return self.run([*command, str(SCRIPTS / script), *arguments])

    def config(self, model):
        """The model's config.json, all keys given."""
        path = pathlib.Path(self.folder) / (pathlib.Path(model).stem + ".json")
        if not path.exists():
            command = [DISTTRAIN, "bench", "model", str(REPOSITORY / "configs" / model)]
            path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return str(path)


def speed(reports):
    """Of a run that reports several calls: what they come to together."""
    return 1 / sum(1 / report["images_per_second"] for report in reports)


def measure(runner, row, rounds):
    """Each side's runs; a run is a list of reports."""
    ours, peer = [], []
    variants = row.variants
    for _ in range(rounds):
        ours.append(runner.ours(row))
        tried = [(runner.peer(row, variant), variant) for variant in variants]
        best, variant = max(tried, key=lambda run: speed(run[0]))
        peer.append(best)
        variants = [variant]
        speeds = " / ".join(f"{speed(reports):.2f}" for reports in [ours[-1], best])
        print(f"{row.title(' and '.join(row.names))}: {speeds}", file=sys.stderr, flush=True)
    return ours, peer


def median(runs, index, key):
    return statistics.median(run[index][key] for run in runs)


def compare_speeds(runner, chosen, arguments):
    """Prints the table of the rows, and what was measured on."""
    print("| images/s | ours | PyTorch | ratio | peak RSS a rank, MiB |\n|---|---|---|---|---|", flush=True)
    speeds = {}
    for row in chosen:
        ours, peer = measure(runner, row, arguments.rounds)
        for index, name in enumerate(row.names):
            own, other = (median(runs, index, "images_per_second") for runs in [ours, peer])
            memory, peer_memory = (median(runs, index, "peak_rss_mib") for runs in [ours, peer])
            print(f"| {row.title(name)} | {own:.2f} | {other:.2f} | {own / other:.2f} "
                  f"| {memory:.0f} / {peer_memory:.0f} = {memory / peer_memory:.2f} |", flush=True)
        speeds[row.section, row.precision, row.ranks, row.threads] = own, other
    report, peer_report = ours[0][0], peer[0][0]

    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    print(f"\n{names[0] if names else 'Unknown processor'}, {os.cpu_count()} cores, {report['processor']}; "
          f"{report['backend']}; OpenBLAS {report['openblas_kernels']}. {peer_report['program']}. "
          f"Medians of {arguments.rounds} runs in turns, {arguments.count} calls each.")
    one, two = (speeds.get(("train", "bf16", ranks, 1)) for ranks in (1, 2))
    if one and two:
        print(f"Two ranks against one, bf16, 16 a rank: ours {two[0] / one[0]:.2f}, PyTorch {two[1] / one[1]:.2f}.")


def main():
    every = rows()
    sections = [*dict.fromkeys(row.section for row in every), "checkpoint"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="ROWS", help=f"of {', '.join(sections)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command, in turns")
    parser.add_argument("--count", type=int, default=3, help="timed calls in a run")
    parser.add_argument("--log", help="file that gets every run's line of JSON")
    parser.add_argument("--folder", default=".", help="on the disk that checkpoints are to be measured on")
    parser.add_argument("--prefix", default="", help="command that runs go through")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(sections):
        parser.error(f"rows {', '.join(sorted(unknown))}: expected {', '.join(sections)}")
    if os.getloadavg()[0] > 0.5:
        print(f"warning: load average {os.getloadavg()[0]:.1f}; something else is computing", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(arguments, folder)
        if chosen := [row for row in every if row.section in (arguments.sections or sections)]:
            compare_speeds(runner, chosen, arguments)
        if "checkpoint" in (arguments.sections or sections):
            checkpoints.compare(runner, arguments.rounds, arguments.folder)


if __name__ == "__main__":
    main()
