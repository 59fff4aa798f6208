"""A fault at every file call of a save in turn, on rank 0 and on rank 1."""

import re
import shutil

import damage
from lab import Fault, Job
from trial import Trial

ERRORS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}
WRITES = re.compile(r"^p?write")
DELETIONS = ("unlink", "unlinkat", "rmdir", "remove")
# A save that one of these failed in must not become a checkpoint.
LASTING = re.compile(r"^(p?write|fsync|fdatasync|ftruncate|fallocate|posix_fallocate)")


def actions(call):
    """The faults that a call can have."""
    if WRITES.match(call.name):
        return ["EIO", "ENOSPC", "short", "torn"]
    if call.name in ("read", "pread", "pread64", "open-read", "close", *DELETIONS):
        return ["EIO", "kill"]
    return ["EIO", "ENOSPC", "kill"]


def second_save(job, rank):
    """The calls of a rank from the second save's first to the third save's; rank 0's delete the first checkpoint."""
    calls = job.calls(rank)
    second = [index for index, call in enumerate(calls) if ".partial-00000004" in call.path]
    third = [index for index, call in enumerate(calls) if ".partial-00000006" in call.path]
    return calls[second[0] : third[0]]


def count(lab):
    """The calls to walk through, of an undisturbed run: (rank, call)."""
    job = Job(lab, lab.place("count"), 2, checkpoint__keep_last=1)
    assert job.wait().code == 0
    return [(rank, call) for rank in ("0", "1") for call in second_save(job, rank)]


def thinned(lab, cases, every):
    """Every so many of the cases, but of each kind of call and action one at least."""
    kinds = {}
    for case in cases:
        kinds.setdefault((case[1].name, case[2]), []).append(case)
    chosen = []
    for kind in kinds.values():
        first = lab.random.randrange(min(every, len(kind)))
        chosen += kind[first::every]
    return chosen


def tasks(lab, options):
    cases = [(rank, call, action) for rank, call in count(lab) for action in actions(call)]
    return [lambda case=case: [walk(lab, *case)] for case in thinned(lab, cases, options.every)]


def walk(lab, rank, call, action):
    row = f"{action} at each call" if action not in ("kill", "torn") else "killed at each call"
    trial = Trial(lab, row, f"rank {rank}, {call}: {action}", 2, keep_last=1)
    job = trial.start(Fault(action, call.number, rank))
    ending = trial.end(job)
    is_kill = action in ("kill", "torn")
    trial.result.kills += is_kill
    trial.result.injected += not is_kill
    hit = next((found for found in job.calls(rank) if found.number == call.number), None)
    trial.expect(hit and hit.name == call.name, f"the call was {hit}, expected {call.name}")
    if is_kill:
        trial.expect(ending.code != 0, "ended with 0 though a rank was killed")
        trial.finish()
        return trial.done()
    if action in ERRORS and call.name != "close":
        trial.expect(ERRORS[action] in ending.text, f"no word of the cause: {ending.tail()}")
        if hit and LASTING.match(call.name):
            folder = re.search(r"/\.partial-[^/]*", hit.path)
            if folder:
                named = [found for found in job.calls("0")
                         if found.path.endswith(folder[0]) and found.commits is not None]
                trial.expect(not named, f"committed after a failed {call.name}: {named}")
    if call.name in DELETIONS:
        trial.may_leave_partials = True
    if trial.expect(ending.code == 0, f"training stopped with {ending.label}, expected to go on: {ending.tail(1)}"):
        trial.compare()
    else:
        trial.finish()
    return trial.done()


# --- The run's other files --------------------------------------------------------------------------------


def file_tasks(lab, options):
    """The same for the run's other files: configuration, metrics, pictures, the finished model; and for all that a
    resumed run calls before it trains. One rank does it."""
    first = Job(lab, lab.place("count"), 0, Fault(folder="", without="checkpoints"))
    assert first.wait().code == 0
    start = damage.stopped_run(lab, 0)
    again = Job(lab, shutil.copytree(start, lab.place("count")), 0, Fault(folder=""), checkpoint__keep_last=1000)
    assert again.wait().code == 0
    save = next(index for index, call in enumerate(again.calls()) if ".partial-00000006" in call.path)
    tasks = []
    for row, place, calls in (("other files", None, first.calls()), ("resume", start, again.calls()[:save])):
        cases = [("alone", call, action) for call in calls for action in actions(call)]
        tasks += [lambda row=row, place=place, case=case: [walk_files(lab, row, place, *case[1:])]
                  for case in thinned(lab, cases, options.every)]
    return tasks


def walk_files(lab, row, start, call, action):
    """A file that cannot be written or read stops the run with a word of the cause, or costs no more than it told."""
    trial = Trial(lab, row, f"{call}: {action}", 0, start=start, keep_last=1000)
    if "/step-00000004" in call.path and action not in ("kill", "torn"):
        trial.damaged.add(4)  # Set aside, since it cannot be read.
    job = trial.start(Fault(action, call.number, "alone", folder="", without="" if start else "checkpoints"))
    ending = trial.end(job, is_resume=bool(start))
    trial.expect(any(found.number == call.number for found in job.calls()), "the call was not reached")
    trial.result.kills += ending.code == 137
    trial.result.injected += ending.code != 137
    if ending.code != 0:
        trial.expect(ending.code == 137 or ERRORS.get(action, "\0") in ending.text,
                     f"ended with {ending.label} and no word of the cause: {ending.text}")
        trial.finish()
    else:
        trial.expect(action not in ("kill", "torn"), "ended with 0 though it was killed")
        trial.compare(may_lack_lines="could not be written and is lost" in ending.text)
    return trial.done()
