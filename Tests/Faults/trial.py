"""One run folder, the faults injected into the run, and the checks after each fault."""

import dataclasses
import os
import shutil

from checkpoint import Damaged, RunFolder
from lab import Job


@dataclasses.dataclass
class Outcome:
    """The result of a trial, for the table."""

    fault: str
    detail: str
    endings: list = dataclasses.field(default_factory=list)
    kills: int = 0
    injected: int = 0
    restarts: int = 0
    lost: int = 0
    is_equal: bool | None = None
    crashes_of_mpirun: int = 0  # of mpirun itself, not of the program
    problems: list = dataclasses.field(default_factory=list)
    known: int = 0  # problems listed as known failures
    skipped: str = ""


class Trial:
    """A run into which faults are injected."""

    def __init__(self, lab, fault, detail, ranks=2, start=None, place=None, keep_last=2, origin=0, **settings):
        """
        start: a run folder to continue, which is copied
        place: a path for the run, else one in the scratch folder
        origin: the run starts from the undisturbed run's checkpoint of this step, by `--resume PATH --output NEW`, and
            every attempt repeats that command; 0 for a run from scratch
        """
        self.lab, self.ranks, self.settings, self.keep_last, self.origin = lab, ranks, settings, keep_last, origin
        self.reference = lab.reference(ranks, **settings)
        self.run = RunFolder(place or lab.place("run"))
        self.result = Outcome(fault, detail)
        self.committed, self.lost = set(), set()
        self.may_leave_partials = False  # Whether undeletable leftovers may exist; they are deleted at the next start.
        # Steps whose checkpoints were damaged on purpose.
        self.damaged = set()
        if start:
            shutil.copytree(start, self.run.path)
            self.committed.update(self.run.steps())

    def problem(self, text):
        self.result.problems.append(text)

    def expect(self, is_true, text):
        if not is_true:
            self.problem(text)
        return is_true

    def start(self, fault=None, **options):
        options = {**self.settings, **options}
        if self.origin:
            options.setdefault("resume", self.reference.run.checkpoint_path(self.origin))
        return Job(self.lab, self.run.path, options.pop("ranks", self.ranks), fault,
                   checkpoint__keep_last=self.keep_last, **options)

    def end(self, job, is_resume=False):
        """Waits for a job, records its commits and how it ended, and checks the files on disk."""
        ending = self.wait(job)
        self.result.restarts += is_resume
        self.committed.update(self.commits_of(job))
        if ending.is_hung:
            self.problem(f"hangs; its last words: {ending.tail()}")
        self.check()
        return ending

    def wait(self, job):
        """Waits for a job and records how it ended."""
        ending = job.wait()
        self.result.endings.append(ending.label)
        self.result.crashes_of_mpirun += ending.is_crash_of_mpirun
        return ending

    @staticmethod
    def commits_of(job):
        return {call.commits for call in job.calls() if call.commits is not None}

    def check(self):
        """Checks that no committed checkpoint is lost or changed."""
        whole = []
        for step in self.run.steps():
            try:
                found = self.run.checkpoint(step).digests
            except Damaged as error:
                if step in self.damaged:
                    self.problem(f"what was damaged is still there under its name: {error}")
                else:
                    self.lose(step, f"is damaged: {error}")
                continue
            if found != self.reference.checkpoints.get(step):
                self.lose(step, "differs from the undisturbed run's")
                continue
            whole.append(step)
            if self.lab.can_verify:
                code, text = self.lab.checkpoint("verify", self.run.checkpoint_path(step))
                self.expect(code == 0, f"`checkpoint verify` says {code} of a whole checkpoint: {text.strip()}")
        for step in self.committed:
            if step not in whole and len([newer for newer in whole if newer > step]) < self.keep_last:
                self.lose(step, f"was committed, and {whole} are there")
        for name in self.run.names():
            if name.startswith("superseded-") and not self.damaged:
                self.lose(int(name.split("-")[1]), f"was set aside as {name}")

    def lose(self, step, text):
        """Counts a committed checkpoint as lost, once."""
        if step not in self.lost:
            self.lost.add(step)
            self.result.lost += 1
            self.problem(f"LOST: step {step} {text}")

    def finish(self, attempts=1, **options):
        """Resumes without a fault until the run has finished, and compares it with the undisturbed one."""
        ending = self.end(self.start(**options), is_resume=True)
        self.expect(ending.code == 0, f"the resumed run ended with {ending.label}: {ending.tail()}")
        self.compare()
        return ending

    def compare(self):
        """Checks that the finished run has the weights, averages and losses of the undisturbed one."""
        last = max(self.reference.checkpoints)
        problems = len(self.result.problems)
        self.expect(last in self.run.steps(), f"no checkpoint of the last step; there are {self.run.steps()}")
        self.expect(self.may_leave_partials or not self.run.partials(), f"left behind: {self.run.partials()}")
        try:
            if last in self.run.steps():
                self.expect(self.run.checkpoint(last).digests == self.reference.checkpoints[last],
                            "the last checkpoint differs from the undisturbed run's")
            self.expect(self.run.model() == self.reference.model, "model/ differs from the undisturbed run's")
            self.compare_losses(self.run.losses())
        except (Damaged, OSError) as error:
            self.problem(str(error))
        self.result.is_equal = len(self.result.problems) == problems

    def compare_losses(self, losses):
        steps = [step for step, _ in losses]
        reference = [(step, loss) for step, loss in self.reference.losses if step > self.origin]
        expected = [step for step, _ in reference]
        if self.expect(steps == expected, f"metrics.jsonl has {shortened(steps)}, expected {shortened(expected)}"):
            self.expect(losses == reference, "metrics.jsonl has other losses than the undisturbed run's")

    def reached(self, job, rank):
        """Checks that the fault was injected: a trial whose fault was never reached shows nothing."""
        hits = job.hits(rank)
        return self.expect(hits, f"the call was not reached: {job.fault}")

    def done(self):
        """Returns the outcome; deletes the folder of a trial that passed."""
        if not self.result.problems and not os.path.ismount(self.run.path):
            shutil.rmtree(self.run.path, ignore_errors=True)
        return self.result


def shortened(numbers):
    text = ", ".join(map(str, numbers))
    return text if len(text) < 80 else f"{text[:50]} ... {text[-20:]} ({len(numbers)})"
