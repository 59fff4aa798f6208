"""Injects a fault at each file call of a save in turn, on ranks 0 and 1, and at each call on the run's other files.

A call is identified by its kind and its file (`pwrite 3 of .partial-00000004-*/unet/…`), which does not depend on the
load of the machine. Every fault must be reached: a trial fails if it is not.
"""

import collections
import fnmatch
import re
import shutil

import damage
from lab import Fault, Job
from trial import Outcome, Trial

ERRORS = {"EIO": "Input/output error", "ENOSPC": "No space left on device", "EDQUOT": "Disk quota exceeded",
          "ESTALE": "Stale file handle", "EMFILE": "Too many open files"}
WRITES = re.compile(r"^p?write")
READS = ("read", "pread", "pread64", "open-read")
DELETIONS = ("unlink", "unlinkat", "rmdir", "remove")
# If one of these calls failed, the save must not become a checkpoint.
LASTING = re.compile(r"^(p?write|fsync|fdatasync|ftruncate|fallocate|posix_fallocate)")
STORAGE_FAULT = 74  # ExitStatus.storageFault
SHORT = 1000  # value of --every in the short form

# Calls that every save must make, by rank. Without this check, the enumeration below could pass while covering little.
SAVE = "*.partial-00000004-[*]"
REQUIRED = {
    "0": ["mkdir " + SAVE, "mkdir " + SAVE + "/unet", "open " + SAVE + "/unet/*.safetensors", "*write* " + SAVE + "/unet/*.safetensors",
          "*write* " + SAVE + "/exp_avg_sq/*.safetensors", "fsync " + SAVE + "/unet/*.safetensors",
          "open " + SAVE + "/manifest.json", "*write* " + SAVE + "/manifest.json", "fsync " + SAVE + "/manifest.json",
          "fsync " + SAVE, "rename* " + SAVE + " -> step-00000004", "fsync ."],
    "1": ["open " + SAVE + "/unet/*.safetensors", "*write* " + SAVE + "/unet/*.safetensors",
          "fsync " + SAVE + "/unet/*.safetensors"],
}
# Calls that a run must make on its other files, and reads that a resume must make.
REQUIRED_FILES = ["open metrics.jsonl", "*write* metrics.jsonl", "f*sync metrics.jsonl", "*write* config.yaml*",
                  "rename* config.yaml*", "*write* model*/unet/*", "rename* model*", "*write* .lock/1.json",
                  "rename* status.json.partial-[*] -> status.json"]
REQUIRED_RESUME = ["open-read checkpoints/step-00000004/manifest.json", "*read* checkpoints/step-00000004/unet/*",
                   "open-read metrics.jsonl", "ftruncate* metrics.jsonl", "*write* metrics.jsonl"]


def actions(call):
    """The faults that can be injected into a call."""
    if WRITES.match(call.name):
        return ["EIO", "ENOSPC", "EDQUOT", "short", "torn", "delay"]
    if call.name in READS or call.name == "close" or call.name in DELETIONS:
        return ["EIO", "ESTALE", "kill"]
    if call.name in ("fsync", "fdatasync"):
        return ["EIO", "ENOSPC", "ESTALE", "kill", "delay"]
    return ["EIO", "ENOSPC", "ESTALE", "kill"]


def address(call):
    return f"{call.name} {call.file}" + (f" -> {call.to}" if call.to else "")


def missing(calls, required):
    """The patterns that match no call."""
    addresses = {address(call) for call in calls}
    return [pattern for pattern in required if not fnmatch.filter(addresses, pattern)]


def second_save(job, rank):
    """The calls of a rank during the save of step 4; on rank 0 they include deleting the first checkpoint."""
    calls = job.calls(rank)
    second = [index for index, call in enumerate(calls) if ".partial-00000004" in call.path]
    third = [index for index, call in enumerate(calls) if ".partial-00000006" in call.path]
    return calls[second[0] : third[0]]


def count(lab, origin=0):
    """The calls of an undisturbed run into which faults are injected: (rank, call)."""
    options = {"resume": lab.reference(2).run.checkpoint_path(origin)} if origin else {}
    job = Job(lab, lab.place("count"), 2, Fault(), checkpoint__keep_last=1, **options)
    ending = job.wait()
    if ending.code != 0:
        raise RuntimeError(f"the counted run ended with {ending.label}: {ending.text}")
    found = []
    for rank in ("0", "1"):
        calls = second_save(job, rank)
        lacking = missing(calls, REQUIRED[rank])
        if lacking:
            raise RuntimeError(f"the save of step 4 on rank {rank} does not call: {', '.join(lacking)}")
        found += [(rank, call) for call in calls]
    return found


def thinned(lab, cases, every):
    """Every `every`-th case, but at least one for each kind of call and action. The short form has one case for each
    kind of call, with alternating actions, so that each action occurs."""
    if every >= SHORT:
        return one_of_each(lab, cases)
    kinds = {}
    for case in cases:
        kinds.setdefault((case[1].name, case[2]), []).append(case)
    chosen = []
    for kind in kinds.values():
        first = lab.random.randrange(min(every, len(kind)))
        chosen += kind[first::every]
    return chosen


def one_of_each(lab, cases):
    """One case for each kind of call, and one for each action that these do not cover."""
    cases = lab.random.sample(cases, len(cases))
    chosen, actions = [], collections.Counter()
    for name in sorted({case[1].name for case in cases}):
        of_this = [case for case in cases if case[1].name == name]
        chosen.append(min(of_this, key=lambda case: actions[case[2]]))
        actions[chosen[-1][2]] += 1
    for action in sorted({case[2] for case in cases} - set(actions)):
        chosen.append(next(case for case in cases if case[2] == action))
    return chosen


def tasks(lab, options):
    """A run from scratch, and one that starts from another run's checkpoint and has none of its own yet."""
    tasks = []
    for origin in (0, 2):
        cases = [(rank, call, action) for rank, call in count(lab, origin) for action in actions(call)]
        if origin and options.every > 1:
            # The short form covers the cases that could make the restart lose its starting point.
            cases = [case for case in cases if case[2] in ("kill", "torn", "EIO")]
        tasks += [lambda case=case, origin=origin: [walk(lab, *case, origin=origin)]
                  for case in thinned(lab, cases, options.every)]
    return tasks


def row_of(action, origin):
    name = {"kill": "killed", "torn": "killed"}.get(action, action)
    return f"{name} at each call" + (", --resume PATH" if origin else "")


def walk(lab, rank, call, action, origin=0):
    trial = Trial(lab, row_of(action, origin), f"rank {rank}, {call}: {action}", 2, keep_last=1, origin=origin)
    job = trial.start(call.fault(action, rank, seconds=2))
    ending = trial.end(job)
    is_kill = action in ("kill", "torn")
    trial.result.kills += is_kill
    trial.result.injected += not is_kill
    trial.reached(job, rank)
    if is_kill:
        trial.expect(ending.code != 0, "ended with 0 though a rank was killed")
        trial.finish()
        return trial.done()
    if action in ERRORS and call.name != "close":
        trial.expect(ERRORS[action] in ending.text, f"the cause is not reported: {ending.tail()}")
        if LASTING.match(call.name):
            folders = {match[0] for match in (re.search(r"/\.partial-[^/]*", hit.path) for hit in job.hits(rank))
                       if match}
            named = [found for found in job.calls("0")
                     if found.commits is not None and any(found.path.endswith(folder) for folder in folders)]
            trial.expect(not named, f"committed after a failed {call.name}: {named}")
    if call.name in DELETIONS:
        trial.may_leave_partials = True
    if trial.expect(ending.code == 0, f"training stopped with {ending.label}, expected it to continue: "
                                      f"{ending.tail(1)}"):
        trial.compare()
    else:
        trial.finish()
    return trial.done()


# --- The run's other files --------------------------------------------------------------------------------


def comes_by_the_clock(call):
    """Heartbeats and the state for `disttrain status` are written at intervals, so only the first of these calls is
    certain to occur."""
    return re.match(r"(\.lock/|status\.json|\.dat\.nosync)", call.file) and call.occurrence > 1


def file_tasks(lab, options):
    """The same for the run's other files: configuration, metrics, pictures, the final model; and for all calls of a
    resumed run before it trains, from its own checkpoint and from that of another run. On one rank."""
    first = Job(lab, lab.place("count"), 0, Fault(folder="", without="checkpoints"))
    assert first.wait().code == 0
    start = damage.stopped_run(lab, 0)
    again = Job(lab, shutil.copytree(start, lab.place("count")), 0, Fault(folder=""), checkpoint__keep_last=1000)
    assert again.wait().code == 0
    save = next(index for index, call in enumerate(again.calls()) if ".partial-00000006" in call.path)
    other = Job(lab, lab.place("count"), 0, Fault(folder="", without="checkpoints"),
                resume=lab.reference(0).run.checkpoint_path(2))
    assert other.wait().code == 0
    tasks = []
    for row, place, origin, calls, required in (
            ("other files", None, 0, first.calls(), REQUIRED_FILES),
            ("resume", start, 0, again.calls()[:save], REQUIRED_RESUME),
            ("other files, --resume PATH", None, 2, other.calls(), REQUIRED_FILES)):
        lacking = missing(calls, required)
        if lacking:
            tasks.append(lambda row=row, lacking=lacking: [
                Outcome(row, "", problems=[f"the run does not call: {', '.join(lacking)}"])])
        cases = [("alone", call, action) for call in calls if not comes_by_the_clock(call) for action in actions(call)]
        if origin and options.every > 1:
            cases = [case for case in cases if case[2] == "kill"]
        tasks += [lambda row=row, place=place, origin=origin, case=case: [
            walk_files(lab, row, place, origin, *case[1:])] for case in thinned(lab, cases, options.every)]
    return tasks


def walk_files(lab, row, start, origin, call, action):
    """A single failure to write or read a file loses nothing: the run retries, or ends with the exit code of a storage
    fault, after which the launcher restarts it."""
    trial = Trial(lab, row, f"{call}: {action}", 0, start=start, keep_last=1000, origin=origin)
    job = trial.start(call.fault(action, "alone", seconds=2, folder="", without="" if start else "checkpoints"))
    ending = trial.end(job, is_resume=bool(start))
    trial.reached(job, "alone")
    trial.result.kills += ending.code == 137
    trial.result.injected += ending.code != 137
    if ending.code != 0:
        trial.expect(ending.code == (137 if action in ("kill", "torn") else STORAGE_FAULT),
                     f"ended with {ending.label}, expected {STORAGE_FAULT}: {ending.tail()}")
        if ending.code != 137:
            trial.expect(ERRORS.get(action, "\0") in ending.text, f"the cause is not reported: {ending.text}")
        trial.finish()
    else:
        trial.expect(action not in ("kill", "torn"), "ended with 0 though it was killed")
        trial.compare()
    return trial.done()
