#!/usr/bin/env python3
"""Trains under `disttrain launch` on three hosts for a long time while random faults are injected.

    Tests/Cluster/soak.py --minutes 90 --seed 1 --output /var/tmp/soak

Two kinds of runs alternate. In `equal` runs the launcher waits for lost hosts (--min-ranks 3), so that training always
uses all ranks and the final weights must be bitwise identical to those of an undisturbed run. In `shrinking` runs it
may continue without one of the hosts (--min-ranks 2). If the launcher gives up or is killed, the same command is
repeated.

Checked throughout: a committed checkpoint disappears only by the retention rule, or if the launcher reports that it
rolls back to the previous one. Checked at the end of a run: it has made its last step, the logged steps have no gap
and no repeat, its checkpoints are intact, no process is left, and all exit codes are documented ones.

When the time is up, no more faults are injected, and the current run is followed to its end. SIGTERM and Ctrl-C clean
up and print the results so far; the same command with the same --output continues. Needs root.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "cluster/testbed"))

import job
import soak_faults
from base import TestbedError
from hosts import Cluster

RECOVERY = 400  # seconds within which a job must train again
KEEP_LAST = 3
LOG_EVERY = 5
SETTINGS = {
    "train.checkpoint_every": 20, "train.log_every": LOG_EVERY, "train.sample_every": 100, "train.batch_size": 3,
    "sampling.count": 4, "sampling.steps": 4, "checkpoint.keep_last": KEEP_LAST,
}
# Exit codes with which no fault here may end the launcher, since the command, the data and the training are correct.
WRONG = {2, 3, 4}
# Exit codes after which the command is repeated. Any other is that of a crash, for which the launcher prints the
# reason.
WORTH_REPEATING = {0, 74, 75}


class Stop(Exception):
    """SIGTERM or Ctrl-C."""


class Training:
    """A run, and a thread that restarts its launcher whenever it has ended before the run is complete."""

    def __init__(self, soak, folder, options):
        self.soak, self.run, self.options = soak, job.Run(folder), options
        self.log_path = soak.output / f"{Path(folder).name}.log"
        self.exits = collections.Counter()
        self.is_done = threading.Event()
        self._process = None
        self._expected = None  # why the launcher must not be started, or was killed
        self._lock = threading.RLock()
        self._ends = False
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self):
        self._thread.start()

    def _keep(self):
        while not self._ends:
            with self._lock:
                if self._process is None and self._expected is None:
                    try:
                        self._launch()
                    except TestbedError:
                        pass  # its host is down
                elif self._process is not None and self._process.poll() is not None:
                    self._note(self._process.returncode)
                    self._process = None
                    if self.is_done.is_set():
                        return
            time.sleep(0.2)

    def _launch(self):
        names = ",".join(f"{self.soak.cluster.hostname(host)}:1" for host in soak_faults.HOSTS)
        words = ["train", "--config", REPOSITORY / "configs/tiny.yaml", "--output", self.run.folder]
        for key, value in (SETTINGS | {"train.steps": self.soak.steps}).items():
            words += ["--set", f"{key}={value}"]
        with open(self.log_path, "a", encoding="utf-8") as log:
            self._process = self.soak.cluster.spawn(
                0, [self.soak.program, "launch", "--host", names, "--threads", "1", *self.options, "--", *words],
                env={"OMP_WAIT_POLICY": "passive"} | self.soak.clock.environment, stdout=log, stderr=subprocess.STDOUT)

    def _note(self, code):
        if self._expected or code < 0:
            self.exits[f"ended by the test ({self._expected or signal.Signals(-code).name})"] += 1
            return
        self.exits[code] += 1
        if code == 0:
            self.is_done.set()

    def signal(self, number):
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return
            if number == signal.SIGKILL:
                # Kill the launcher itself: killing the process that represents it outside the namespaces would end
                # both.
                for pid in self.soak.cluster.pids(0, f"{self.soak.program} launch --host"):
                    if Path(f"/proc/{pid}/comm").read_text() == "disttrain\n":
                        os.kill(pid, number)
            else:
                self._process.send_signal(number)

    @contextmanager
    def suspended(self, why):
        """Keeps the launcher from being restarted."""
        with self._lock:
            self._expected = why
        try:
            yield
            job.wait_until(lambda: self._process is None or self._process.poll() is not None, 30, "the launcher ends")
        finally:
            with self._lock:
                if self._process is not None and self._process.poll() is not None:
                    self._note(self._process.returncode)
                    self._process = None
                self._expected = None

    def stop(self):
        self._ends = True
        self._thread.join()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def position(self):
        """(id of the start, step) if the job trains; None otherwise."""
        status, attempts = self.run.json("status.json"), self.run.attempts
        if not status or not attempts or status["attempt"] != attempts[-1]["id"] or status["state"] != "running":
            return None
        return status["attempt"], self.run.step

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class CheckpointWatch:
    """A thread that checks that committed checkpoints are not lost."""

    def __init__(self, training):
        self.training = training
        self.committed, self.superseded, self.problems = set(), 0, []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _names(self):
        try:
            return set(os.listdir(self.training.run.folder / "checkpoints"))
        except FileNotFoundError:
            return set()

    @staticmethod
    def _steps(names):
        return {int(name[5:]) for name in names if name.startswith("step-") and name[5:].isdigit()}

    def _watch(self):
        known = set()
        while not self._ends.wait(0.1):
            names = self._names()
            steps = self._steps(names)
            self.committed |= steps
            for step in known - steps:
                if sum(other > step for other in steps) >= KEEP_LAST:
                    continue
                is_aside = any(name.startswith(f"superseded-{step:08d}") for name in names)
                if is_aside and "failed twice after that of step" in self.training.log:
                    self.superseded += 1
                else:
                    self.problems.append(f"the checkpoint of step {step} has disappeared; left: {sorted(steps)}")
            known = steps

    def stop(self):
        self._ends.set()
        self._thread.join()


class Soak:
    def __init__(self, arguments):
        self.arguments = arguments
        self.output = Path(arguments.output).resolve()
        if self.output.parts[1] in ("tmp", "run", "dev"):
            sys.exit(f"--output {self.output}: hosts of the test bed have a /{self.output.parts[1]} of their own; choose a "
                     "folder that all of them see, such as one below /var/tmp")
        self.output.mkdir(parents=True, exist_ok=True)
        self.state_path = self.output / "state.json"
        self.state = {"seconds": 0, "runs": 0, "faults": {}, "exits": {}, "recoveries": {}, "restarts": 0, "steps_lost": 0,
                      "seconds_lost": 0, "superseded": 0, "checkpoints": 0, "passed": 0, "failures": []}
        if self.state_path.exists():
            self.state |= json.loads(self.state_path.read_text())
        self.steps = arguments.steps
        # Each start of this script draws different faults.
        self.random = random.Random(f"{arguments.seed} {self.state['seconds']}")
        self.program = self.output / "disttrain"
        self.other_program = self.output / "disttrain-other-build"
        if not self.program.exists():
            # Use a copy, so that a build during the test does not replace the program of a running job.
            shutil.copy2(job.PROGRAM, self.program)
            self.other_program.write_bytes(self.program.read_bytes() + b"\0")
            self.other_program.chmod(0o755)
        self.disk = soak_faults.Disk(self.output / "disk.ext4", self.output / "disk")
        self.clock = soak_faults.Clock(self.output)
        self.cluster = self.training = None
        self.began = None

    # Time

    @property
    def time_left(self):
        return self.arguments.minutes * 60 - self.state["seconds"] - (time.monotonic() - self.began)

    def hold(self, least, most, quiet=False):
        """Keeps a fault active for a random time; unless `quiet`, sometimes injects a second fault meanwhile."""
        seconds = self.random.uniform(least, most)
        if not quiet and self.random.random() < 0.2:
            time.sleep(seconds / 2)
            self.count("rank_killed (during another fault)")
            soak_faults.rank_killed(self)
            seconds /= 2
        time.sleep(seconds)

    # Counts

    def count(self, name):
        self.state["faults"][name] = self.state["faults"].get(name, 0) + 1

    def check(self, passed, what):
        if passed:
            self.state["passed"] += 1
        else:
            self.state["failures"].append(what)
            print(f"FAILED: {what}", flush=True)

    def save(self):
        self.state_path.write_text(json.dumps(self.state, indent=1))

    # A run

    def wait_for_training(self, seconds=RECOVERY):
        """Waits until the job makes steps; returns False if it has ended, or does not make any within that time."""
        end = time.monotonic() + seconds
        first = None
        while time.monotonic() < end:
            if self.training.is_done.is_set():
                return False
            found = self.training.position()
            if found and first and found[0] == first[0]:
                if found[1] >= first[1] + 2:
                    return True
            else:
                first = found
            time.sleep(0.2)
        return False

    def wait_for_start(self, before, seconds=RECOVERY):
        """Waits until the run has started again, since the ranks of the previous start may still be training."""
        end = time.monotonic() + seconds
        while len(self.training.run.attempts) <= before and time.monotonic() < end and not self.training.is_done.is_set():
            time.sleep(0.1)

    def wait_between(self):
        """Usually waits until the job has made progress; sometimes does not, so that failures follow each other
        directly."""
        if self.random.random() < 0.65:
            before = self.training.run.checkpoint
            end = time.monotonic() + 60
            while self.training.run.checkpoint <= before and time.monotonic() < end and not self.training.is_done.is_set():
                time.sleep(0.1)
        time.sleep(self.random.uniform(0, 5))

    def disturb(self):
        faults, weights = zip(*[pair for pair in soak_faults.ALL
                                if any(word in pair[0].__name__ for word in self.arguments.only.split(","))])
        while self.time_left > 0 and not self.training.is_done.is_set():
            if not self.wait_for_training():
                self.check(self.training.is_done.is_set(), f"{self.training.run.folder.name}: not training within {RECOVERY} s")
                if not self.training.is_done.is_set():
                    return
                break
            self.wait_between()
            if self.training.is_done.is_set():
                break
            fault = self.random.choices(faults, weights)[0]
            self.count(fault.__name__)
            began, step = time.monotonic(), self.training.run.step
            print(f"{time.strftime('%H:%M:%S')} {self.training.run.folder.name} step {step}: {fault.__name__}", flush=True)
            fault(self)
            held = time.monotonic()
            if self.wait_for_training():
                seconds = time.monotonic() - held
                self.state["recoveries"].setdefault(fault.__name__, []).append(round(seconds, 1))
                print(f"{time.strftime('%H:%M:%S')}     held for {held - began:.0f} s, training {seconds:.0f} s after that",
                      flush=True)
            self.save()

    def one_run(self, kind, reference):
        number = self.state["runs"] + 1
        folder = self.disk.folder / f"{number}-{kind}"
        for other in self.disk.folder.glob("*-*"):
            if other != folder:
                shutil.rmtree(other)
        self.training = Training(self, folder, ["--min-ranks", "3" if kind == "equal" else "2"])
        watch = CheckpointWatch(self.training)
        began = time.monotonic()
        try:
            self.training.start()
            self.disturb()
            self.check(self.training.is_done.wait(RECOVERY + 10 * reference["seconds"]), f"{folder.name}: has not ended")
        finally:
            seconds = time.monotonic() - began
            self.training.stop()
            watch.stop()
        self.state["runs"] = number
        self.state["seconds_lost"] += max(0, seconds - reference["seconds"])
        self.judge(kind, watch, Path(reference["folder"]))
        self.save()

    def judge(self, kind, watch, reference):
        run, name = self.training.run, self.training.run.folder.name
        attempts = run.attempts
        self.state["restarts"] += len(attempts) - 1
        for first, second in zip(attempts, attempts[1:]):
            if first.get("lastStep"):
                self.state["steps_lost"] += max(0, first["lastStep"] - (second.get("firstStep") or 0))
        for code, count in self.training.exits.items():
            self.state["exits"][str(code)] = self.state["exits"].get(str(code), 0) + count
        codes = {code for code in self.training.exits if isinstance(code, int)}
        crashes = codes - WORTH_REPEATING - WRONG
        given_up = self.training.log.count("Not restarted: ")
        self.check(not crashes or given_up, f"{name}: exit codes {sorted(crashes)} without a reason")
        self.check(not codes & WRONG, f"{name}: exit codes {sorted(codes & WRONG)}")
        self.state["checkpoints"] += len(watch.committed)
        self.state["superseded"] += watch.superseded
        self.check(not watch.problems, f"{name}: {'; '.join(watch.problems)}")
        self.check(run.checkpoint == self.steps, f"{name}: the last checkpoint is of step {run.checkpoint}")
        self.check("skipping checkpoint" not in self.training.log, f"{name}: a checkpoint was found damaged")
        expected = list(range(LOG_EVERY, self.steps + 1, LOG_EVERY))
        found = [step for step, _ in run.trace()]
        self.check(found == expected, f"{name}: the logged steps have a gap or a repeat: {differences(expected, found)}")
        verified = subprocess.run([self.program, "checkpoint", "verify", run.folder], capture_output=True, text=True)
        self.check(verified.returncode == 0, f"{name}: checkpoint verify: {verified.stdout} {verified.stderr}")
        sizes = {len(attempt["hosts"]) for attempt in attempts}
        self.check(kind != "equal" or sizes == {3}, f"{name}: {sizes} hosts in starts, expected 3")
        if sizes == {3}:
            diff = subprocess.run([self.program, "checkpoint", "diff", reference, run.folder], capture_output=True, text=True)
            self.check(diff.returncode == 0, f"{name}: the weights differ: {diff.stdout} {diff.stderr}")
            self.check(run.trace() == job.Run(reference).trace(), f"{name}: the losses differ")
        try:
            job.check_nothing_is_left(self.cluster, run.folder, soak_faults.HOSTS)
            self.check(True, "")
        except job.Failed as failure:
            self.check(False, f"{name}: {failure}")
        print(f"{time.strftime('%H:%M:%S')} {name}: {len(attempts)} starts, exit codes {dict(self.training.exits)}", flush=True)

    def reference(self):
        """An undisturbed run with the same number of steps."""
        path = self.output / f"reference-{self.steps}.json"
        if path.exists():
            return json.loads(path.read_text())
        folder = self.output / f"reference-{self.steps}"
        shutil.rmtree(folder, ignore_errors=True)
        self.training = Training(self, folder, [])
        began = time.monotonic()
        self.training.start()
        try:
            if not self.training.is_done.wait(900):
                raise job.Failed(f"the undisturbed run has not ended:\n{self.training.log}")
        finally:
            self.training.stop()
        found = {"folder": str(folder), "seconds": time.monotonic() - began}
        path.write_text(json.dumps(found))
        print(f"undisturbed: {self.steps} steps in {found['seconds']:.0f} s", flush=True)
        return found

    def run(self):
        self.disk.mount()
        try:
            with Cluster(3) as self.cluster:
                reference = self.reference()
                self.began = time.monotonic()
                try:
                    while self.time_left > 0:
                        self.one_run(("equal", "shrinking")[self.state["runs"] % 2], reference)
                finally:
                    self.state["seconds"] += time.monotonic() - self.began
                    self.save()
                    # Thaw the disk, since processes that wait for it cannot exit.
                    self.disk.thaw()
        finally:
            self.disk.unmount()

    def report(self):
        state = self.state
        print("\n| fault | times | training again after, s: median, longest |\n|---|---|---|")
        for name, count in sorted(state["faults"].items()):
            seconds = sorted(state["recoveries"].get(name, []))
            print(f"| {name.replace('_', ' ')} | {count} | "
                  + (f"{seconds[len(seconds) // 2]:.0f}, {seconds[-1]:.0f} |" if seconds else "|"))
        print(f"\n{state['seconds'] / 60:.0f} min, {state['runs']} runs of {self.steps} steps, "
              f"{sum(state['faults'].values())} faults, {state['restarts']} restarts, "
              f"exit codes of the launcher: {', '.join(f'{code}: {count}' for code, count in sorted(state['exits'].items()))}")
        print(f"{state['checkpoints']} checkpoints committed, {state['superseded']} superseded after two failures, "
              f"{state['steps_lost']} steps and {state['seconds_lost'] / 60:.0f} min lost")
        for failure in state["failures"]:
            print(f"FAILED: {failure}")
        print(f"{state['passed']} passed, {len(state['failures'])} failed")


def differences(expected, found):
    missing = sorted(set(expected) - set(found))
    extra = [step for step, count in collections.Counter(found).items() if count > 1 or step not in expected]
    return f"missing {missing[:10]}, repeated or unexpected {sorted(extra)[:10]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--steps", type=int, default=600, help="of each run")
    parser.add_argument("--only", default="", help="faults whose name contains one of these, by commas")
    parser.add_argument("--output", default="/var/tmp/disttrain-soak", help="state, logs and runs; continued where it exists")
    arguments = parser.parse_args()

    def stop(*_):
        raise Stop
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    soak = Soak(arguments)
    code = 0
    try:
        soak.run()
    except Stop:
        print("stopped; the same command continues", flush=True)
        code = 75
    except Exception:
        traceback.print_exc()
        soak.check(False, "the soak test itself failed")
    soak.save()
    soak.report()
    return code or (1 if soak.state["failures"] else 0)


if __name__ == "__main__":
    sys.exit(main())
