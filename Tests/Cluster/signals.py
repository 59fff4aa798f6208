"""SIGTERM, SIGINT and SIGUSR1 to each kind of process of a job: all ranks end after the same step, with a checkpoint
and exit code 75, and the same command resumes from there. On a single host: Tests/Integration/test_supervision.sh."""

import os
import re
import signal
import time
from pathlib import Path

from faults import Outcome
from job import PROGRAM, Job, Run, check_nothing_is_left, rank_of, require, wait_until

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def told(cluster, folder, reference, find):
    """Sends each signal to a separate start of one run. `find` returns the process."""
    seconds = []
    for number in SIGNALS:
        job = Job(cluster, folder)
        try:
            job.wait_for_checkpoint()
            began = time.monotonic()
            os.kill(find(job), number)
            end(job, 75)
            seconds.append(time.monotonic() - began)
            step = re.search(r"[Ss]topped by .* after step (\d+)", job.log)
            require(step, f"no step is reported:\n{job.log}")
            require(job.run.checkpoint == int(step[1]),
                    f"checkpoint of step {job.run.checkpoint}, expected {step[1]}:\n{job.log}")
            check_nothing_is_left(cluster, folder, (0, 1, 2))
        finally:
            job.stop()
    end(Job(cluster, folder), 0)
    Run(folder).check_equal(reference, same_ranks=True)
    return Outcome(max(seconds), None, 0, "saved after "
                   + ", ".join(f"{value:.1f} s ({number.name})" for number, value in zip(SIGNALS, seconds)))


def end(job, expected):
    try:
        require(job.end() == expected, f"exit code {job.process.returncode}, expected {expected}:\n{job.log}")
    finally:
        job.stop()


def listens(pid):
    """Whether a process has a handler for SIGUSR1."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) & 1 << (signal.SIGUSR1 - 1))


def launcher_told(cluster, folder, reference):
    return told(cluster, folder, reference, lambda job: job.process.pid)


def mpirun_told(cluster, folder, reference):
    """mpirun waits 15 s before it forwards a terminating signal."""
    def find(job):
        found = [pid for pid in cluster.pids(0, str(folder)) if Path(f"/proc/{pid}/comm").read_text() == "mpirun\n"]
        require(len(found) == 1, f"found {len(found)} mpirun on node0")
        return found[0]
    # Slow the network down, so that the run is still training when the signal arrives.
    cluster.shape(latency_ms=60)
    try:
        return told(cluster, folder, reference, find)
    finally:
        cluster.shape()


def rank_told(cluster, folder, reference):
    """A rank on another host than mpirun's."""
    def find(job):
        found = [pid for pid in cluster.pids(1, str(folder)) if rank_of(pid) == "1"]
        require(len(found) == 1, f"found {len(found)} processes of rank 1 on node1")
        return found[0]
    return told(cluster, folder, reference, find)


def told_early(cluster, folder, reference):
    """Signals before the hosts have responded, while mpirun starts and while ranks load: a step is made and saved
    anyway."""
    seconds = []
    for delay in (0, 0.4, 0.8, 1.6, 2.4):
        job = Job(cluster, folder)
        try:
            wait_until(lambda: any(map(listens, cluster.pids(0, f"{PROGRAM} launch"))), 10, "the launcher listens", every=0.01)
            time.sleep(delay)
            began, before = time.monotonic(), job.run.checkpoint
            job.process.send_signal(signal.SIGUSR1)
            end(job, 75)
            require(job.run.checkpoint > before, f"no new checkpoint:\n{job.log}")
            seconds.append(time.monotonic() - began)
        finally:
            job.stop()
    end(Job(cluster, folder), 0)
    Run(folder).check_equal(reference, same_ranks=True)
    return Outcome(max(seconds), None, 0, "a step made, and saved")


ALL = [launcher_told, mpirun_told, rank_told, told_early]
