"""Interrupted starts from another run's checkpoint (`--resume PATH --output NEW`): repeating the command never starts
over and never discards what NEW has saved."""

import os

import calls
from checkpoint import RunFolder
from damage import digest
from lab import Fault
from trial import Trial

SHARDS = "*.partial-{step:08d}-*/unet/*.safetensors"


def tasks(lab, options):
    del options
    return [
        *(lambda ranks=ranks, launch=launch: [before_the_first_save(lab, ranks, launch)]
          for ranks, launch in ((0, False), (2, False), (2, True))),
        lambda: [after_the_first_save(lab)],
        lambda: [full_before_the_first_save(lab)],
        lambda: [command_repeated(lab)],
        lambda: [origin_gone(lab)],
    ]


def expect_origin(trial, ending, step, path=None):
    trial.expect(f"Resuming from {path or trial.reference.run.checkpoint_path(step)}" in ending.text,
                 f"not resumed from step {step}: {ending.tail(20)}")


def before_the_first_save(lab, ranks, launch):
    """A rank is killed in the first save of the new run, which has no checkpoint yet."""
    starter = "launch" if launch else "mpirun" if ranks else "one process"
    trial = Trial(lab, "--resume PATH: killed before a save", starter, ranks, keep_last=1000, origin=2)
    rank = "1" if ranks else "alone"
    once = lab.place("once") if launch else ""
    job = trial.start(Fault("kill", "*write*", SHARDS.format(step=4), rank=rank, once=once), launch=launch)
    ending = trial.end(job)
    trial.result.kills += 1
    trial.reached(job, rank)
    expect_origin(trial, ending, 2)
    if launch:
        # The launcher restarts the run automatically.
        trial.result.restarts += 1
        trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
        trial.expect(ending.text.count("Resuming from") == 2, f"the restart did not resume: {ending.tail(30)}")
        trial.compare()
    else:
        trial.expect(ending.code != 0, "ended with 0 though a rank was killed")
        expect_origin(trial, trial.finish(), 2)
    return trial.done()


def after_the_first_save(lab):
    """A run killed in its second save continues from its own first checkpoint."""
    trial = Trial(lab, "--resume PATH: killed after a save", "", 2, keep_last=1000, origin=2)
    job = trial.start(Fault("kill", "*write*", SHARDS.format(step=6), rank="1"))
    trial.end(job)
    trial.result.kills += 1
    trial.reached(job, "1")
    trial.expect(trial.run.steps() == [4], f"there are {trial.run.steps()}, expected step 4")
    expect_origin(trial, trial.finish(), 4, trial.run.checkpoint_path(4))
    return trial.done()


def full_before_the_first_save(lab):
    """No save of the new run succeeds; the run is restarted when there is space."""
    trial = Trial(lab, "--resume PATH: disk full", "no save succeeds", 2, keep_last=1000, origin=2)
    job = trial.start(Fault("ENOSPC", "*write*", "*.partial-*", times=0), checkpoint__save_timeout=3)
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "0")
    trial.expect(ending.code == calls.STORAGE_FAULT,
                 f"ended with {ending.label}, expected {calls.STORAGE_FAULT}: {ending.tail()}")
    expect_origin(trial, trial.finish(), 2)
    return trial.done()


def command_repeated(lab):
    """Repeating the command after the run has ended changes nothing."""
    trial = Trial(lab, "--resume PATH: repeated", "after the end", 2, keep_last=1000, origin=2)
    ending = trial.end(trial.start())
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    before = digest(trial.run.checkpoints)
    again = trial.finish()
    trial.expect(digest(trial.run.checkpoints) == before, f"the checkpoints have changed: {again.tail(20)}")
    trial.expect("set aside" not in again.text, f"checkpoints were set aside: {again.tail(20)}")
    return trial.done()


def origin_gone(lab):
    """If PATH is missing, a run without a checkpoint of its own is rejected, and one with a checkpoint continues."""
    trial = Trial(lab, "--resume PATH: PATH is gone", "", 2, keep_last=1000, origin=2)
    path = lab.place("gone")
    ending = trial.wait(trial.start(resume=path))
    trial.result.injected += 1
    trial.expect(ending.code not in (0, 137), f"ended with {ending.label}: it has started over")
    trial.expect(path in ending.text, f"no word of {path}: {ending.text}")
    trial.expect(not RunFolder(trial.run.path).steps(), "it has started over")
    ending = trial.end(trial.start(train__steps=4))
    trial.expect(ending.code == 0, f"ended with {ending.label}: {ending.tail()}")
    ending = trial.end(trial.start(resume=path), is_resume=True)
    trial.expect(ending.code == 0, f"ended with {ending.label}, though it has a checkpoint: {ending.tail()}")
    if ending.code == 0:
        trial.compare()
    return trial.done()
