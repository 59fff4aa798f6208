"""Outputs other than checkpoints that cannot be written: they are retried, and never stop a run or change its
weights."""

import os
import sys

from calls import ERRORS, STORAGE_FAULT
from lab import Fault, HERE
from trial import Trial

sys.path.insert(0, os.path.join(HERE, os.pardir, "Integration"))
import read_records  # noqa: E402

# A run that produces every kind of output.
EVERYTHING = {
    "train__steps": 8, "train__sample_every": 2, "train__checkpoint_every": 2, "sampling__count": 2,
    "sampling__steps": 2, "evaluation__every": 2, "evaluation__count": 20, "evaluation__steps": 2,
    "evaluation__features": "pixel", "logging__wandb": "offline"}
CHANGES = "@(open|*write*|fsync|fdatasync|rename*|mkdir*|ftruncate*)"

# name -> (the calls, the files). Files that are written once at the start, such as config.yaml, are in the family
# "files".
OUTPUTS = {
    "sample grids": (CHANGES, "samples/*"),
    "loss.png": (CHANGES, "*loss.png*"),
    "evaluation": (CHANGES, "evaluation/*\nevaluation"),
    "TensorBoard": (CHANGES, "tensorboard/*\ntensorboard"),
    "W&B": (CHANGES, "wandb/*\nwandb"),
    "status.json": (CHANGES, "*status.json*\n.dat.nosync*"),
    "heartbeats of the lock": ("@(pwrite*|fdatasync)", ".lock/*"),
}
LOGS = ("@(open|*write*|mkdir*)", "logs/*")


def tasks(lab, options):
    errors = ["EIO", "ENOSPC", "EDQUOT", "ESTALE"]
    tasks = []
    for index, name in enumerate(OUTPUTS):
        # The short form covers each error, and each output with one error.
        for error in errors if options.every == 1 else [errors[index % len(errors)]]:
            # Fail some calls in the middle of the run, or all from some point on.
            short = [((6, 3), (3, 0))[index % 2]]
            for at, times in short if options.every > 1 else ((1, 1), (6, 3), (12, 8), (3, 0)):
                if name == "heartbeats of the lock":
                    # The first write takes the lock. The following ones come every ten seconds, and the last one at the
                    # end.
                    at, times = 3, 0
                tasks.append(lambda name=name, error=error, at=at, times=times: [
                    unwritable(lab, name, error, at, times)])
        if name not in ("status.json", "heartbeats of the lock", "loss.png"):
            tasks.append(lambda name=name: [a_file_in_place(lab, name)])
    tasks += [lambda error=error, times=times: [metrics(lab, error, times)] for error, times in (
        ("ENOSPC", 1), ("EIO", 3), ("ESTALE", 0))]
    tasks += [lambda error=error: [logs(lab, error)] for error in (errors if options.every == 1 else ["ENOSPC"])]
    tasks += [lambda error=error: [configuration(lab, error)] for error in (errors if options.every == 1 else ["EIO"])]
    return tasks


def expect_whole_records(trial, has_tensorboard, has_wandb):
    """Checks that the records are intact and in order, and that they include the last step."""
    last = max(trial.reference.checkpoints)
    for name, read in (("TensorBoard", read_records.tensorboard), ("W&B", read_records.wandb)):
        if not (has_tensorboard if name == "TensorBoard" else has_wandb):
            continue
        try:
            steps = [step for kind, step in read(trial.run.path) if kind == "loss"]
        except (AssertionError, OSError, IndexError) as error:
            trial.problem(f"{name}: {error}")
            continue
        trial.expect(steps == sorted(set(steps)), f"{name} has the steps {steps}")
        trial.expect(last in steps, f"{name} lacks step {last}, though it could be written again: {steps}")


def unwritable(lab, name, error, at, times):
    trial = Trial(lab, f"{name}: not writable", f"{error}, {times or 'all'} from the call {at} on", 2, keep_last=1000,
                  **EVERYTHING)
    call, files = OUTPUTS[name]
    job = trial.start(Fault(error, call, files, at=at, times=times, folder="", without="checkpoints"))
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "0")
    # The lock is also released by the end of the process.
    if name != "heartbeats of the lock":
        trial.expect(ERRORS[error] in ending.text, f"the cause is not reported: {ending.text}")
    trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    trial.compare()
    if times > 0:
        last = max(trial.reference.checkpoints)
        expect_whole_records(trial, True, True)
        for path in (f"samples/samples_{last:08d}.png", "loss.png", f"evaluation/step-{last:08d}-pixel.json",
                     "status.json"):
            trial.expect(os.path.isfile(os.path.join(trial.run.path, path)),
                         f"no {path}, though it could be written again")
    return trial.done()


def a_file_in_place(lab, name):
    """A file replaces an output folder during a run: `mv RUN/samples x; touch RUN/samples`."""
    trial = Trial(lab, f"{name}: not writable", "a file in the folder's place, at a resume", 2, keep_last=1000,
                  **EVERYTHING)
    folder = {"sample grids": "samples", "evaluation": "evaluation", "TensorBoard": "tensorboard",
              "W&B": "wandb"}[name]
    ending = trial.end(trial.start(train__steps=4))
    trial.expect(ending.code == 0, f"the first half ended with {ending.label}: {ending.tail()}")
    path = os.path.join(trial.run.path, folder)
    os.rename(path, path + "-moved")
    with open(path, "wb"):
        pass
    ending = trial.end(trial.start(), is_resume=True)
    trial.result.injected += 1
    trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    trial.expect(any(path in line for line in ending.text.splitlines()), f"no word of {path}: {ending.text}")
    trial.expect("Warning" in ending.text, f"no warning: {ending.text}")
    trial.compare()
    return trial.done()


def metrics(lab, error, times):
    """A resume needs metrics.jsonl, so no line may be lost or duplicated. If the file cannot be written at all, the run
    ends with a storage fault, and the next start completes it."""
    trial = Trial(lab, "metrics.jsonl: not writable", f"{error}, {times or 'all'} writes", 2, keep_last=1000,
                  **EVERYTHING)
    job = trial.start(Fault(error, "pwrite*", "metrics.jsonl", at=4, times=times, folder="", without="checkpoints"),
                      checkpoint__save_timeout=3)
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "0")
    trial.expect(ERRORS[error] in ending.text, f"the cause is not reported: {ending.text}")
    if times > 0:
        trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    else:
        trial.expect(ending.code == STORAGE_FAULT,
                     f"ended with {ending.label}, expected {STORAGE_FAULT}: {ending.tail()}")
    if ending.code == 0:
        trial.compare()
    else:
        trial.finish()
    return trial.done()


def logs(lab, error):
    """The launcher's copies of the ranks' output."""
    trial = Trial(lab, "logs: not writable", f"{error}, all from the call 3 on", 2, keep_last=1000, **EVERYTHING)
    call, files = LOGS
    job = trial.start(Fault(error, call, files, at=3, times=0, rank="alone", folder="", without="checkpoints"),
                      launch=True)
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "alone")
    trial.expect(ending.code == 0, f"ended with {ending.label}, expected 0: {ending.tail()}")
    trial.compare()
    return trial.done()


def configuration(lab, error):
    """config.yaml, which a resume rewrites, temporarily cannot be written."""
    trial = Trial(lab, "config.yaml: not writable", f"{error} at a resume", 2, keep_last=1000, **EVERYTHING)
    ending = trial.end(trial.start(train__steps=4))
    trial.expect(ending.code == 0, f"the first half ended with {ending.label}: {ending.tail()}")
    job = trial.start(Fault(error, CHANGES, "config.yaml*", times=2, folder="", without="checkpoints"))
    ending = trial.end(job, is_resume=True)
    trial.result.injected += 1
    trial.reached(job, "0")
    trial.expect(ending.code in (0, STORAGE_FAULT),
                 f"ended with {ending.label}, expected 0 or {STORAGE_FAULT}: {ending.tail()}")
    trial.expect(ERRORS[error] in ending.text, f"the cause is not reported: {ending.text}")
    if ending.code == 0:
        trial.compare()
    else:
        trial.finish()
    return trial.done()
