"""Errors during a save, in a program built with AddressSanitizer: no thread may read memory that has been freed.

    make test-address

The sanitizer's interceptors call the fault library's functions, since symbols of the program take precedence over
those of the library. Leak detection is off, because Open MPI has many leaks.
"""

import os

from calls import STORAGE_FAULT
from checkpoint import Damaged
from lab import Fault
from trial import Trial

# Slow down each write of a checkpoint and the release of the run folder's lock, which is the last action of a process:
# if a thread then reads freed memory, the sanitizer is still active to detect it.
SLOW_DISK = {"call": "@(*write*|fsync|fdatasync)", "file": "checkpoints/*\n.lock/*\n*status.json*", "times": 0,
             "seconds": 0.02, "rank": "all", "folder": ""}
NUMERICAL_FAULT = 4


def tasks(lab, options):
    del options
    if not lab.sanitized:
        return [lambda: skipped(lab)]
    os.environ["ASAN_OPTIONS"] = "detect_leaks=0"
    return [
        *(lambda ranks=ranks: [undisturbed(lab, ranks)] for ranks in (0, 2)),
        *(lambda ranks=ranks: [numerical_fault(lab, ranks)] for ranks in (0, 2)),
        *(lambda ranks=ranks: [storage_fault(lab, ranks)] for ranks in (0, 2)),
    ]


def skipped(lab):
    trial = Trial(lab, "AddressSanitizer", "", 0)
    trial.result.skipped = "no sanitized program (make test-address)"
    return [trial.done()]


def expect_clean(trial, ending):
    for text in ("AddressSanitizer", "runtime error"):
        trial.expect(text not in ending.text, f"the sanitizer reports: {ending.text[:3000]}")


def undisturbed(lab, ranks):
    trial = Trial(lab, "AddressSanitizer", f"{ranks} ranks, a slow disk", ranks, keep_last=1000)
    ending = trial.wait(trial.start(Fault("delay", **SLOW_DISK), program=lab.sanitized))
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    expect_clean(trial, ending)
    return trial.done()


def numerical_fault(lab, ranks):
    """The step after the start of a save is not finite. The save, whose state is valid, completes before the program
    ends."""
    trial = Trial(lab, "AddressSanitizer", f"{ranks} ranks, a numerical fault in a save", ranks, keep_last=1000)
    job = trial.start(Fault("delay", **SLOW_DISK), program=lab.sanitized, optimizer__learning_rate="1e30",
                      train__checkpoint_every=1)
    ending = trial.wait(job)
    trial.result.injected += 1
    trial.reached(job, "0" if ranks else "alone")
    expect_clean(trial, ending)
    trial.expect(ending.code == NUMERICAL_FAULT, f"ended with {ending.label}, expected {NUMERICAL_FAULT}: {ending.tail()}")
    if trial.expect(trial.run.steps() == [1], f"the checkpoints of steps {trial.run.steps()} are there, expected 1"):
        try:
            trial.run.checkpoint(1)
        except Damaged as error:
            trial.lose(1, f"is damaged: {error}")
    trial.expect(not trial.run.partials(), f"left behind: {trial.run.partials()}")
    return trial.done()


def storage_fault(lab, ranks):
    """A rank's file of the save fails after a delay, while training continues."""
    trial = Trial(lab, "AddressSanitizer", f"{ranks} ranks, failing saves", ranks, keep_last=1000)
    job = trial.start(Fault("EIO", "*write*", "checkpoints/.partial-*/exp_avg_sq/*", times=0, rank="all", folder=""),
                      program=lab.sanitized, checkpoint__save_timeout=3)
    ending = trial.wait(job)
    trial.result.injected += 1
    trial.reached(job, "0" if ranks else "alone")
    expect_clean(trial, ending)
    trial.expect(ending.code == STORAGE_FAULT, f"ended with {ending.label}, expected {STORAGE_FAULT}: {ending.tail()}")
    return trial.done()
