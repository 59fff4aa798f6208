"""A training job on the hosts of a test bed, started by `disttrain launch`, and measurements of its reaction to
faults."""

import json
import os
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("DISTTRAIN", REPOSITORY / ".build/release/disttrain"))
STEPS = 120
CHECKPOINT_EVERY = 40
SETTINGS = {
    "train.steps": STEPS, "train.checkpoint_every": CHECKPOINT_EVERY, "train.log_every": 10,
    "train.sample_every": 0, "train.batch_size": 12,
}


class Failed(Exception):
    """An expectation of a test was not met."""


def require(condition, message):
    if not condition:
        raise Failed(message)


def wait_until(condition, seconds, what, every=0.05):
    """Waits until the condition is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        require(time.monotonic() < end, f"{what}: not within {seconds:g} s")
        time.sleep(every)


def rank_of(pid):
    """The rank of a process as text; None for a process that mpirun has not started."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(item.partition("=")[::2] for item in variables).get("OMPI_COMM_WORLD_RANK")


def check_nothing_is_left(cluster, folder, hosts):
    """Waits until no process of the run in this folder is left on these hosts."""
    left = {}

    def gone():
        nonlocal left
        left = {cluster.hostname(host): cluster.pids(host, str(folder)) for host in hosts}
        return not any(left.values())
    try:
        wait_until(gone, 30, "processes end")
    except Failed:
        raise Failed(f"processes remain: {left}")


def train_arguments(run, steps=STEPS, settings=None, resume=None):
    words = ["train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", run]
    if resume:
        words += ["--resume", resume]
    for key, value in (SETTINGS | {"train.steps": steps} | (settings or {})).items():
        words += ["--set", f"{key}={value}"]
    return words


class Run:
    """A run folder and the progress recorded in it."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def json(self, name):
        try:
            return json.loads((self.folder / name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    @property
    def attempts(self):
        return (self.json("launch.json") or {}).get("attempts", [])

    @property
    def step(self):
        """The step of the most advanced rank."""
        status = self.json("status.json") or {"ranks": []}
        return max((rank["reading"]["step"] for rank in status["ranks"]), default=0)

    @property
    def checkpoint(self):
        steps = [int(path.name[5:]) for path in (self.folder / "checkpoints").glob("step-*")]
        return max(steps, default=0)

    def trace(self):
        """(step, loss) of every logged step."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in lines if line["kind"] == "step"]

    def is_training(self, attempt):
        """Whether this start of the run has completed a step."""
        status = self.json("status.json")
        return bool(status and status["attempt"] == attempt["id"]
                    and any(rank["reading"]["stepSeconds"] > 0 for rank in status["ranks"]))

    def check_equal(self, reference, same_ranks):
        """Checks that the curves are equal, without gap or repeat, and the weights too if the ranks were the same."""
        expected, found = reference.trace(), self.trace()
        require([step for step, _ in expected] == [step for step, _ in found],
                f"logged steps {[step for step, _ in found]}, expected every tenth, once")
        apart = max(abs(a - b) / abs(a) for (_, a), (_, b) in zip(expected, found))
        require(apart <= (0 if same_ranks else 1e-4), f"losses are {apart:.1e} apart")
        if same_ranks:
            done = subprocess.run([PROGRAM, "checkpoint", "diff", reference.folder, self.folder], text=True,
                                  capture_output=True)
            require(done.returncode == 0, f"the weights differ: {done.stdout} {done.stderr}")


class Job:
    """`disttrain launch` on hosts of a cluster, one rank on each, run from node0; without hosts: three ranks on node0.

    - wrapper: a command that executes the arguments that follow it
    """

    def __init__(self, cluster, folder, hosts=(0, 1, 2), options=(), steps=STEPS, settings=None, resume=None, wrapper=()):
        self.cluster, self.run = cluster, Run(folder)
        names = ",".join(f"{cluster.hostname(host)}:1" for host in hosts)
        self.log_path = Path(f"{folder}.log")
        self.log_file = open(self.log_path, "w")
        self.process = cluster.spawn(
            0, [*wrapper, PROGRAM, "launch", *(["--host", names] if hosts else ["-n", "3"]), "--threads", "1", *options,
                "--", *train_arguments(folder, steps, settings, resume)],
            env={"OMP_WAIT_POLICY": "passive"}, stdout=self.log_file, stderr=subprocess.STDOUT)

    @property
    def log(self):
        return self.log_path.read_text()

    def wait_for_checkpoint(self, seconds=120):
        """Waits until the job has made some steps after a checkpoint."""
        wait_until(lambda: self._alive() and self.run.checkpoint > 0 and self.run.step >= self.run.checkpoint + 10,
                   seconds, f"{self.run.folder.name}: steps behind a checkpoint")

    def _alive(self):
        require(self.process.poll() is None, f"the launcher has ended with {self.process.returncode}:\n{self.log}")
        return True

    def end(self, seconds=300):
        """Waits for the launcher and returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.run.folder.name} has not ended within {seconds} s:\n{self.log}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log_file.close()
