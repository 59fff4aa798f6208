"""Disks that temporarily accept no writes: fsfreeze on a separate disk, which needs root. A job waits for its disk."""

import os
import subprocess
import time

from disks import Disk, skipped
from lab import Fault
from trial import Trial

# Long enough that the disk can be frozen during the run, with many saves.
SETTINGS = {"train__steps": 4000, "train__checkpoint_every": 100}
SAVES = "in a save"
OUTPUT = "between saves, with the launcher's output"


def tasks(lab, options):
    """Freezes for a minute; in the short form, just longer than every timeout that does not concern storage."""
    seconds = 60 if options.every == 1 else 22
    try:
        disk = Disk(lab)
        problem = disk.problem
        if not problem:
            disk.remove()
    except (OSError, subprocess.CalledProcessError) as error:
        problem = str(error)
    if problem:
        return [lambda: skipped(lab, "disk stalls", f"no loop mounts here: {problem}")]
    lab.reference(2, **SETTINGS)
    cases = [("between saves", True), (SAVES, True)]
    if options.every == 1:
        cases += [("between saves", False), (SAVES, False), (OUTPUT, True)]
    return [lambda case=case: [frozen_disk(lab, *case, seconds)] for case in cases]


def freeze(trial, is_in_save, job):
    """Freezes the run's disk during a save or between saves; returns False if the job ends before."""
    disk = os.path.dirname(trial.run.path)
    while job.process.poll() is None:
        if len(trial.run.steps()) > 1 and bool(trial.run.partials()) == is_in_save:
            subprocess.run(["fsfreeze", "-f", disk], check=True)
            if bool(trial.run.partials()) == is_in_save:
                return True
            thaw(disk)
        time.sleep(0.0005)
    return False


def thaw(disk):
    subprocess.run(["fsfreeze", "-u", disk], check=True)


def frozen_disk(lab, moment, launch, seconds):
    disk = Disk(lab)
    how = "launch" if launch else "mpirun"
    trial = Trial(lab, "disk stalls", f"{how}, {moment}, {seconds} s", 2, place=f"{disk.path}/run", **SETTINGS)
    output = open(f"{disk.path}/output", "wb") if moment == OUTPUT else None
    # Slow down the third save to several seconds, so that the freeze is certain to hit it.
    slow = Fault("delay", "*write*", ".partial-00000300-*", times=0, seconds=0.01)
    job = trial.start(slow if moment == SAVES else None, launch=launch, stdout=output, stderr=output)
    if trial.expect(freeze(trial, moment == SAVES, job), "the job ended before its disk was frozen"):
        pids = job.rank_pids()
        trial.result.injected += 1
        try:
            time.sleep(seconds)
            trial.expect(job.process.poll() is None, "the job ended while its disk was frozen")
        finally:
            thaw(disk.path)
        trial.expect(job.rank_pids() == pids, "the job was started again")
    if output:
        output.close()
    ending = trial.end(job)
    trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    if launch:
        attempts = os.listdir(os.path.join(trial.run.path, "logs"))
        trial.expect(attempts == ["attempt-0001"], f"started again: {attempts}")
    trial.compare()
    outcome = trial.done()
    disk.remove()
    return outcome
