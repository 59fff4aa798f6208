"""Reads that fail temporarily during a resume must never cause a checkpoint to be set aside."""

from calls import ERRORS, STORAGE_FAULT
from damage import digest, stopped_run
from lab import Fault
from trial import Trial

READS = "@(open-read|*read*)"
NEWEST = "step-00000004/*"
# The files whose reads fail, by description.
FILES = {
    "manifest.json": "step-00000004/manifest.json",
    "the first file": NEWEST,
    "a shard": "step-00000004/exp_avg/*.safetensors",
}


def tasks(lab, options):
    start = stopped_run(lab)
    errors = ("EIO", "EMFILE", "ESTALE")
    cases = [(file, error, rank, times) for file in FILES for error in errors for rank in ("0", "1")
             for times in (1, 2, 0)]
    if options.every > 1:
        # The short form covers each file, error, rank and number of failures at least once.
        cases = [("manifest.json", "EIO", "1", 1), ("the first file", "EMFILE", "1", 2), ("a shard", "ESTALE", "0", 1),
                 ("a shard", "EIO", "1", 0)]
    return [lambda case=case: [failing_reads(lab, start, *case)] for case in cases] + [
        lambda: [failing_reads_under_the_launcher(lab, start)]]


def failing_reads(lab, start, file, error, rank, times):
    trial = Trial(lab, "reads fail at a resume", f"{error}, {times or 'all'} reads of {file} on rank {rank}", 2,
                  start=start, keep_last=1000)
    before = digest(trial.run.checkpoints)
    job = trial.start(Fault(error, READS, FILES[file], times=times, rank=rank))
    ending = trial.wait(job)
    trial.result.restarts += 1
    trial.result.injected += 1
    trial.reached(job, rank)
    trial.expect(ERRORS[error] in ending.text, f"the cause is not reported: {ending.text}")
    trial.expect("skipping checkpoint" not in ending.text, f"the checkpoint was skipped: {ending.text}")
    trial.expect(ending.code in (0, STORAGE_FAULT) if times else ending.code == STORAGE_FAULT,
                 f"ended with {ending.label}, expected {'0 or ' if times else ''}{STORAGE_FAULT}: {ending.tail()}")
    trial.check()
    if ending.code == 0:
        trial.expect("step-00000004, step 4" in ending.text, f"not resumed from step 4: {ending.tail(20)}")
        trial.compare()
        return trial.done()
    trial.expect(digest(trial.run.checkpoints) == before, "the refused run has changed the checkpoints")
    ending = trial.finish()
    trial.expect("step-00000004, step 4" in ending.text, f"not resumed from step 4: {ending.tail(20)}")
    return trial.done()


def failing_reads_under_the_launcher(lab, start):
    """The launcher restarts the run until the reads succeed."""
    trial = Trial(lab, "reads fail at a resume", "under the launcher", 2, start=start, keep_last=1000)
    job = trial.start(Fault("EIO", READS, NEWEST, times=0, rank="1", once=lab.place("once")), launch=True)
    ending = trial.end(job, is_resume=True)
    trial.result.injected += 1
    trial.reached(job, "1")
    trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    trial.expect("step-00000004, step 4" in ending.text, f"not resumed from step 4: {ending.tail(20)}")
    trial.compare()
    return trial.done()
