"""Slurm's interruptions of jobs, which a run must survive. Each job uses the batch script in cluster/slurm."""

import os
import re
import time

from base import TestbedError
from faults import Outcome
from job import PROGRAM, REPOSITORY, Failed, Run, require, train_arguments, wait_until
from slurm import FINAL

SCRIPTS = REPOSITORY / "cluster/slurm"
STEPS = 300


class BatchJob:
    """A script from cluster/slurm, submitted with other limits."""

    SHAPE = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")

    def __init__(self, slurm, folder, *options, steps=STEPS, script="train", shape=SHAPE):
        self.slurm, self.run = slurm, Run(folder)
        self.log_path = f"{folder}.log"
        words = [str(word) for word in train_arguments(folder, steps)[2:]]
        self.number = slurm.sbatch(
            SCRIPTS / f"{script}.sbatch", *shape, f"--output={self.log_path}", "--open-mode=append", *options, "--",
            *words, cwd=str(REPOSITORY), env={"DISTTRAIN": str(PROGRAM)})

    @property
    def log(self):
        return open(self.log_path).read() if os.path.exists(self.log_path) else ""

    def wait(self, states, seconds):
        try:
            self.slurm.wait(self.number, states, seconds)
        except TestbedError as error:
            raise Failed(f"{error}:\n{self.log}")

    def follow(self, seconds):
        """Follows the job to its last step through any number of requeues; returns their number."""
        end = time.monotonic() + seconds
        while True:
            shown = self.slurm.job(self.number)
            if shown["JobState"] == "COMPLETED":
                return int(shown["Restarts"])
            require(shown["JobState"] not in FINAL, f"job is {shown['JobState']}:\n{self.log}")
            require(time.monotonic() < end, f"not done within {seconds} s:\n{self.log}")
            # Slurm delays a requeued job by two minutes; start it now.
            if shown["JobState"] == "PENDING" and shown.get("Reason") == "BeginTime":
                self.slurm.run("head", ["scontrol", "update", f"JobId={self.number}", "StartTime=now"])
            time.sleep(0.5)

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
    """One sbatch with a limit of one minute reaches the last step through requeues."""
    attempt = reference.attempts[0]
    # Steps for three time limits at the current speed of this machine; each start loses part of its minute.
    steps = int(STEPS / (attempt["endedAt"] - attempt["startedAt"]) * 180)
    job = BatchJob(slurm, folder, "--time=1", steps=steps)
    restarts = job.follow(1500)
    require(restarts >= 3, f"{restarts} requeues, expected at least 3:\n{job.log}")
    require([step for step, _ in job.run.trace()] == list(range(10, steps + 1, 10)) + [steps] * (steps % 10 > 0),
            "the logged steps have a gap or a repeat, or end too early")
    return Outcome(lost=0, note=f"{restarts} requeues, untouched")


def cancelled(slurm, folder, reference):
    """scancel: SIGTERM from Slurm, and SIGKILL after KillWait."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    reached = job.run.step
    began = time.monotonic()
    slurm.scancel(job.number)
    job.wait("CANCELLED", 60)
    seconds = time.monotonic() - began
    lost = max(0, reached - job.run.checkpoint)
    require(lost <= 50, f"{lost} steps lost:\n{job.log}")
    return Outcome(seconds, None, lost, "ended; the same sbatch continues")


def told(slurm, folder, reference):
    """scancel --signal=USR1 --batch: saves, and the same sbatch resumes with another number of nodes."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    began = time.monotonic()
    slurm.scancel(job.number, "--signal=USR1", "--batch")
    wait_until(lambda: "Stopped by" in job.log, 60, "the job stops with a checkpoint")
    seconds = time.monotonic() - began
    slurm.scancel(job.number)
    job.wait("CANCELLED", 60)
    other = BatchJob(slurm, folder, "--time=30", "--nodes=3")
    other.wait("COMPLETED", 300)
    other.run.check_equal(reference, same_ranks=False)
    return Outcome(seconds, None, 0, "saved; continued with 3 nodes instead of 2")


def node_down(slurm, folder, reference):
    """Slurm requeues the job on the remaining nodes."""
    job = BatchJob(slurm, folder, "--time=30")
    job.wait_for_checkpoint()
    reached, began = job.run.step, time.monotonic()
    slurm.node_down(1)
    wait_until(lambda: int(slurm.job(job.number)["Restarts"]) > 0, 60, "the job is requeued", every=0.5)
    noticed = time.monotonic() - began
    resumed = job.run.checkpoint
    job.follow(300)
    slurm.node_resume(1)
    job.run.check_equal(reference, same_ranks=True)
    return Outcome(noticed, None, max(0, reached - resumed), "requeued by Slurm")


def preempted(slurm, folder, reference, partition="normal", extra=()):
    """A job with a higher priority takes its nodes: it saves on Slurm's signal, is requeued, and resumes after the
    other job."""
    job = BatchJob(slurm, folder, "--time=30", f"--partition={partition}", *extra)
    job.wait_for_checkpoint()
    reached, began = job.run.step, time.monotonic()
    other = slurm.sbatch("#!/bin/bash\nsleep 5\n", "--partition=urgent", "--nodes=3", "--exclusive")
    wait_until(lambda: int(slurm.job(job.number)["Restarts"]) > 0, 120, f"the job is requeued:\n{job.log}", every=0.5)
    seconds, resumed = time.monotonic() - began, job.run.checkpoint
    slurm.wait(other, {"RUNNING", "COMPLETED"}, 60)
    restarts = job.follow(600)
    require(restarts == 1, f"{restarts} requeues, expected 1:\n{job.log}")
    job.run.check_equal(reference, same_ranks=True)
    lost = max(0, reached - resumed)
    require(lost <= 50, f"{lost} steps lost:\n{job.log}")
    stop = re.search(r"Stopped by \S+ on rank \d+ after step \d+", job.log)
    return Outcome(seconds, None, lost, f"{stop[0] if stop else 'ended by Slurm'}; requeued")


def preempted_and_cancelled(slurm, folder, reference):
    """If the partition's preemption mode is to cancel, the job requeues itself in time."""
    return preempted(slurm, folder, reference, "cheap")


def early_signal(slurm, folder, reference):
    """Slurm's signal before the ranks have started: the job makes a step, saves and is requeued."""
    job = BatchJob(slurm, folder, "--time=30")
    wait_until(lambda: "launch:" in job.log or slurm.pids(0, f"{PROGRAM} launch"), 60, "the launcher runs", every=0.01)
    slurm.scancel(job.number, "--signal=USR1", "--batch")
    restarts = job.follow(600)
    require(restarts == 1, f"{restarts} requeues, expected 1:\n{job.log}")
    job.run.check_equal(reference, same_ranks=True)
    return Outcome(lost=0, note="one step made, saved, requeued")


def array(slurm, folder, reference):
    """If requeueing is not permitted: the jobs of an array, each with a limit of one minute."""
    attempt = reference.attempts[0]
    steps = int(STEPS / (attempt["endedAt"] - attempt["startedAt"]) * 90)
    job = BatchJob(slurm, folder, "--time=1", "--array=1-6%1", script="array", steps=steps)
    def done():
        shown = slurm.scontrol("--oneliner", "show", "job", job.number)
        states = re.findall(r"JobState=(\S+)", shown)
        require(not set(states) & (FINAL - {"COMPLETED"}), f"jobs are {states}:\n{job.log}")
        return len(states) == 6 and set(states) == {"COMPLETED"}
    wait_until(done, 900, "all jobs of the array are done", every=1)
    starts = len(job.run.attempts)
    saved = job.log.count("with a checkpoint; repeat the same command")
    require(saved >= 1, f"no job was stopped in time:\n{job.log}")
    require([step for step, _ in job.run.trace()] == list(range(10, steps + 1, 10)) + [steps] * (steps % 10 > 0),
            "the logged steps have a gap or a repeat, or end too early")
    return Outcome(lost=0, note=f"{saved} of 6 jobs stopped in time, {starts} starts")


def single(slurm, folder, reference):
    """A whole node; the script determines the ranks and threads there."""
    job = BatchJob(slurm, folder, "--time=30", script="single", shape=())
    require(job.follow(600) == 0, f"it was requeued:\n{job.log}")
    job.run.check_equal(reference, same_ranks=False)
    summary = re.search(r"launch: (\d+ node.*)", job.log)
    return Outcome(note=summary[1])


ALL = [
    time_limit, cancelled, told, node_down, preempted, preempted_and_cancelled, early_signal, array, single,
]
