"""What Slurm does to jobs, and that a run survives it. Each job is the batch script that cluster/slurm ships."""

import os
import time

from faults import Outcome
from job import PROGRAM, REPOSITORY, Failed, Run, require, train_arguments, wait_until

SCRIPT = REPOSITORY / "cluster/slurm/train.sbatch"
STEPS = 900


class BatchJob:
    """The shipped script, submitted with other limits."""

    def __init__(self, slurm, folder, *options, steps=STEPS):
        self.slurm, self.run = slurm, Run(folder)
        self.log_path = f"{folder}.log"
        words = [str(word) for word in train_arguments(folder, steps)[1:]]
        self.number = slurm.sbatch(
            SCRIPT, "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--output={self.log_path}", *options,
            cwd=str(REPOSITORY), env={"DISTTRAIN": str(PROGRAM), "DISTTRAIN_TRAIN": " ".join(words)})

    @property
    def log(self):
        return open(self.log_path).read() if os.path.exists(self.log_path) else ""

    def wait(self, states, seconds):
        try:
            self.slurm.wait(self.number, states, seconds)
        except Exception as error:
            raise Failed(f"{error}:\n{self.log}")

    def wait_for_checkpoint(self):
        wait_until(lambda: self.run.checkpoint > 0 and self.run.step >= self.run.checkpoint + 10, 120,
                   "steps behind a checkpoint")


def prepare(slurm, scratch):
    folder = scratch / "undisturbed-slurm"
    if not folder.exists():
        job = BatchJob(slurm, folder, "--time=30")
        job.wait("COMPLETED", 300)
    return Run(folder)


def time_limit(slurm, folder, reference):
    """One sbatch with a limit of a minute goes through its requeues to the last step."""
    # Slurm lets a requeued job wait for two minutes.
    job = BatchJob(slurm, folder, "--time=1", steps=4 * STEPS)
    end = time.monotonic() + 1500
    while slurm.state(job.number) != "COMPLETED":
        require(time.monotonic() < end, f"not done in time:\n{job.log}")
        shown = slurm.job(job.number)
        require(shown["JobState"] not in {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"},
                f"job is {shown['JobState']}:\n{job.log}")
        if shown["JobState"] == "PENDING" and shown.get("Reason") == "BeginTime":
            slurm.scontrol("update", f"JobId={job.number}", "StartTime=now")
        time.sleep(0.5)
    restarts = int(slurm.job(job.number)["Restarts"])
    require(restarts >= 3, f"{restarts} requeues, expected at least 3:\n{job.log}")
    require(job.run.trace()[-1][0] == 4 * STEPS, "the last step was not reached")
    return Outcome(lost=0, note=f"{restarts} requeues, untouched")


def cancelled(slurm, folder, reference):
    """scancel: Slurm's SIGTERM, and SIGKILL when KillWait is over."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    reached = job.run.step
    began = time.monotonic()
    slurm.scancel(job.number)
    job.wait("CANCELLED", 60)
    seconds = time.monotonic() - began
    lost = max(0, reached - job.run.checkpoint)
    require(lost <= 50, f"{lost} steps lost:\n{job.log}")
    return Outcome(seconds, None, lost, "ended; the same sbatch goes on")


def told(slurm, folder, reference):
    """scancel --signal=TERM --batch: saved, and the same sbatch goes on with another number of nodes."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    began = time.monotonic()
    slurm.scancel(job.number, "--signal=USR1", "--batch")
    wait_until(lambda: "with a checkpoint" in job.log, 60, "the job stops with a checkpoint")
    seconds = time.monotonic() - began
    slurm.scancel(job.number)
    job.wait("CANCELLED", 60)
    other = BatchJob(slurm, folder, "--time=30", "--nodes=3")
    other.wait("COMPLETED", 300)
    other.run.check_equal(reference, same_ranks=False)
    return Outcome(seconds, None, 0, "saved; went on with 3 nodes in place of 2")


def node_down(slurm, folder, reference):
    """Slurm itself requeues the job on the nodes that are left."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    reached, began = job.run.step, time.monotonic()
    slurm.node_down(1)
    def requeued():
        shown = slurm.job(job.number)
        if shown["JobState"] == "PENDING" and shown.get("Reason") == "BeginTime":
            slurm.scontrol("update", f"JobId={job.number}", "StartTime=now")
        return shown["JobState"] == "RUNNING" and int(shown["Restarts"]) >= 1
    wait_until(requeued, 200, "the job is requeued", every=0.5)
    noticed = time.monotonic() - began
    resumed = job.run.checkpoint
    job.wait("COMPLETED", 300)
    slurm.node_resume(1)
    job.run.check_equal(reference, same_ranks=True)
    return Outcome(noticed, None, max(0, reached - resumed), "requeued by Slurm")


ALL = [time_limit, cancelled, told, node_down]
