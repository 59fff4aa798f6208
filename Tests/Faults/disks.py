"""Disk faults: a power failure, a full disk, a read-only disk. They need root, to mount separate disks."""

import os
import subprocess
import time

import calls
from trial import Outcome, Trial

# Enough saves for any number of consecutive failures.
LONG = {"train__steps": 80, "train__checkpoint_every": 2}


def mount(lab, path, *arguments):
    """Mounts a file system at a folder, which is created; returns None, or the reason for a failure."""
    os.makedirs(path, exist_ok=True)
    result = subprocess.run(["mount", *arguments, path], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return result.stderr.strip()
    with lab.lock:
        lab.mounts.append(path)
    return None


def unmount(lab, path):
    # A process that another thread has just started may still hold open files that it inherited from this one.
    for _ in range(100):
        if subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            break
        time.sleep(0.1)
    else:
        raise RuntimeError(f"{path} is still busy")
    with lab.lock:
        lab.mounts.remove(path)


def remount(path, options):
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def skipped(lab, row, reason):
    trial = Trial(lab, row, "", 2)
    trial.result.skipped = reason
    return [trial.done()]


# --- Power cuts -------------------------------------------------------------------------------------------


class Disk:
    """An ext4 file system in a file, without the features that protect programs that do not call fsync."""

    def __init__(self, lab):
        self.lab = lab
        self.image, self.path = lab.place("ext4"), lab.place("disk")
        with open(self.image, "wb") as file:
            file.truncate(48 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.problem = self.mount()

    def mount(self):
        return mount(self.lab, self.path, "-o", "loop,noauto_da_alloc,commit=300", self.image)

    def power_on(self):
        unmount(self.lab, self.path)
        problem = self.mount()
        if problem:
            raise RuntimeError(f"cannot mount the disk after the power cut: {problem}")

    def remove(self):
        unmount(self.lab, self.path)
        os.remove(self.image)


def power_tasks(lab, options):
    try:
        disk = Disk(lab)
        problem = disk.problem
        if not problem:
            disk.remove()
    except (OSError, subprocess.CalledProcessError) as error:
        problem = str(error)
    if problem:
        return [lambda: skipped(lab, "power cut", f"no loop mounts here: {problem}")]
    # Power cuts at different writes of a file are alike, but each of them is a case.
    cases = [(rank, call, "powercut") for rank, call in calls.count(lab)]
    lie = [case for case in cases if case[1].name == "mkdir"][-1]
    return [lambda case=case: [power_cut(lab, *case)] for case in calls.thinned(lab, cases, options.every)] + [
        lambda: [disk_that_lies(lab, *lie)]]


def disk_that_lies(lab, rank, call, action):
    """Without the fsync of the weights, a power failure must lose a checkpoint; otherwise the test cannot detect
    losses."""
    outcome = power_cut(lab, rank, call, action, lie=".safetensors")
    found = Outcome("power cut, no fsync", "the proof that it can be lost", endings=outcome.endings[:1], injected=1)
    if outcome.lost == 0:
        found.problems.append("nothing was lost: these power cuts are none")
    return found


def power_cut(lab, rank, call, action, lie=""):
    disk = Disk(lab)
    trial = Trial(lab, "power cut", f"rank {rank}, {call}", 2, place=f"{disk.path}/run", keep_last=1)
    job = trial.start(call.fault(action, rank, lie=lie))
    ending = trial.wait(job)
    disk.power_on()
    trial.result.injected += 1
    trial.expect(not ending.is_hung, f"hangs: {ending.tail()}")
    trial.reached(job, rank)
    trial.committed = durable_commits(trial.run.checkpoints, job.calls())
    trial.check()
    trial.finish()
    outcome = trial.done()
    disk.remove()
    return outcome


def durable_commits(folder, found):
    """The steps whose final names are durable: the folder was synced after the rename."""
    named, durable = set(), set()
    for call in found:
        if call.commits is not None:
            named.add(call.commits)
        if call.name == "fsync" and call.result == "0" and call.path == folder:
            durable |= named
    return durable


# --- Full and read-only disks -----------------------------------------------------------------------------


def full_tasks(lab, options):
    del options
    return [lambda: full_disk(lab), lambda: read_only(lab), lambda: read_only_start(lab)]


def stopped_after_failures(trial, ending, words):
    """Checks that training continued to its last step, with warnings, and ended with the exit code of a storage fault
    because the last checkpoint could not be saved."""
    alarms = [line for line in ending.text.splitlines() if words in line]
    trial.expect(len(alarms) > 1, f"{len(alarms)} lines say '{words}', expected more: {ending.tail()}")
    trial.expect(ending.code == calls.STORAGE_FAULT,
                 f"ended with {ending.label}, expected {calls.STORAGE_FAULT}: {ending.tail()}")
    last = max(trial.reference.checkpoints)
    trial.expect(f"step {last}/{last}" in ending.text, f"training did not continue to step {last}: {ending.tail()}")


def full_disk(lab):
    reference = lab.reference(2, **LONG)
    one = sum(-(-os.path.getsize(os.path.join(folder, name)) // 4096) * 4096
              for folder, _, names in os.walk(reference.run.checkpoint_path(2)) for name in names)
    place = lab.place("full")
    problem = mount(lab, place, "-t", "tmpfs", "-o", f"size={int(1.6 * one)}", "faults")
    if problem:
        return skipped(lab, "disk full", problem)
    trial = Trial(lab, "disk full", f"a tmpfs of {int(1.6 * one)} bytes", 2, place=place, keep_last=1, **LONG)
    ending = trial.end(trial.start(checkpoint__save_timeout=3))
    trial.result.injected += 1
    stopped_after_failures(trial, ending, "No space left on device")
    trial.expect(2 in trial.run.steps(), "the checkpoint that there was room for is not there")
    remount(place, "size=100m")
    trial.finish()
    outcome = trial.done()
    unmount(lab, place)
    return [outcome]


def read_only(lab):
    """The disk of the checkpoints becomes read-only at the first call of the second save."""
    save = calls.second_save(lab.reference(2).job, "0")[0]
    trial = Trial(lab, "disk read-only", "from the second save on", 2, keep_last=1, **LONG)
    place = trial.run.checkpoints
    problem = mount(lab, place, "-t", "tmpfs", "faults")
    if problem:
        return skipped(lab, "disk read-only", problem)
    job = trial.start(save.fault("readonly", "0"), checkpoint__save_timeout=3)
    ending = trial.end(job)
    trial.result.injected += 1
    trial.reached(job, "0")
    trial.expect(not any(call.result == "remount failed" for call in job.calls()), "the disk is still writable")
    stopped_after_failures(trial, ending, "Read-only file system")
    remount(place, "rw")
    trial.finish()
    unmount(lab, place)
    return [trial.done()]


def read_only_start(lab):
    """A run is resumed on a read-only disk: it is rejected with a clear message, and nothing is lost."""
    place = lab.place("readonly")
    problem = mount(lab, place, "-t", "tmpfs", "faults")
    if problem:
        return skipped(lab, "disk read-only", problem)
    trial = Trial(lab, "disk read-only", "at a start", 2, place=place)
    job = trial.start(calls.second_save(trial.reference.job, "0")[8].fault("kill", "0"))
    trial.end(job)
    trial.reached(job, "0")
    trial.result.kills += 1
    remount(place, "ro")
    ending = trial.end(trial.start(), is_resume=True)
    trial.result.injected += 1
    trial.expect(ending.code == calls.STORAGE_FAULT,
                 f"ended with {ending.label}, expected {calls.STORAGE_FAULT}: {ending.tail()}")
    trial.expect("Read-only file system" in ending.text, f"no word of the cause: {ending.text}")
    remount(place, "rw")
    trial.finish()
    outcome = trial.done()
    unmount(lab, place)
    return [outcome]
