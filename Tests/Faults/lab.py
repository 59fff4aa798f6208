"""Starts the program with faults and provides the expected results."""

import collections
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from checkpoint import RunFolder, STEP_NAME, read

HERE = os.path.dirname(os.path.realpath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
# Timeout in seconds after which a job counts as hung. A job takes two seconds on an idle machine; the limit only serves
# to end a hang.
ENDLESS = 300.0

# Parts of file names that differ between runs: random ids, times, hosts and process ids.
RANDOM_PARTS = [
    (re.compile(r"((?:\.partial|superseded)-\d{8,}-(?:expired-)?)[0-9a-f]{8}(?=[-/]|$)"), r"\1*"),
    (re.compile(r"(\.partial-)\d+(?![\d-])"), r"\1*"),
    (re.compile(r"\.\d+\.tmp$"), ".*.tmp"),
    (re.compile(r"\.dat\.nosync\w+\.\w+$"), ".dat.nosync*"),
    (re.compile(r"events\.out\.tfevents\.[^/]*"), "events.out.tfevents.*"),
    (re.compile(r"offline-run-\d+_\d+-\w+"), "offline-run-*"),
    (re.compile(r"run-\w+\.wandb"), "run-*.wandb"),
    (re.compile(r"(samples_\d+_)[0-9a-f]{20}"), r"\1*"),
]


@dataclasses.dataclass(frozen=True)
class Fault:
    """The parameters of interpose.c: which call of which rank has which fault. Patterns are those of fnmatch(3)."""

    action: str = ""
    call: str = ""  # pattern of the call's name, "" for no fault
    file: str = "*"  # patterns, one per line, of the file's path in `folder`
    to: str = ""  # pattern of the second path of a rename
    at: int = 1  # which of the matching calls, from 1
    times: int = 1  # number of matching calls with the fault from there on; 0 for all
    rank: str = "0"
    seconds: float = 0  # duration of a delay
    until: str = ""  # the file that the action "wait" waits for
    once: str = ""  # a file that only the first process can create, so that restarted ones do not have the fault
    lie: str = ""  # fsync of paths with this text does nothing
    folder: str = "checkpoints"  # the subfolder of the run whose calls are logged; "" for the whole run folder
    without: str = ""  # a subfolder whose calls are not logged


@dataclasses.dataclass(frozen=True)
class Call:
    """A line of the library's log."""

    is_hit: bool  # whether it had the fault
    name: str
    result: str
    path: str
    other: str
    file: str  # pattern of the path relative to the logged folder
    to: str  # the same for the second path, or ""
    occurrence: int  # index among the calls of this name on this file, from 1

    def __str__(self):
        to = f" -> {self.to}" if self.to else ""
        return f"{self.name} {self.occurrence} of {'the folder' if self.file == '.' else self.file}{to}"

    def fault(self, action, rank, **options):
        """A fault at this call, for any run."""
        file, to = (text.replace("*", "+([!/])") for text in (self.file, self.to))  # "*" would match slashes
        return Fault(action, self.name, file, to, self.occurrence, rank=rank, **options)

    @property
    def kind(self):
        """Name and file without steps and shards: `pwrite unet/*.safetensors`."""
        return f"{self.name} {re.sub(r'[0-9]+', '#', self.file)}"

    @property
    def commits(self):
        """The step whose checkpoint this call renamed to its final name, or None."""
        match = STEP_NAME.match(os.path.basename(self.other))
        return int(match[1]) if match and self.name.startswith("rename") and self.result == "0" else None


def pattern_of(path, folder):
    """A pattern, the same for every run, for a file's path relative to a folder."""
    path = os.path.relpath(path, folder) if path == folder or path.startswith(folder + "/") else path
    for expression, replacement in RANDOM_PARTS:
        path = expression.sub(replacement, path)
    return path


@dataclasses.dataclass
class Ending:
    """How a job ended: its exit code (128 + signal if it was killed) and its output."""

    code: int
    text: str
    is_hung: bool

    @property
    def label(self):
        return "hangs" if self.is_hung else str(self.code)

    @property
    def is_crash_of_mpirun(self):
        """Whether mpirun of Open MPI 4.1 itself crashed or hung, which happens about once in a thousand starts on a
        busy machine."""
        return re.search(r"\[\d+\] mpirun\(\+0x|PMIX ERROR", self.text) is not None

    def tail(self, lines=3):
        # Leave out mpirun's message about a rank's exit code; its other messages may be relevant.
        said = re.sub(r"-{70,}\n(?:(?!-{70}).)*(?:non-zero|exited on signal).*?\n-{70,}\n", "", self.text, flags=re.DOTALL)
        return " | ".join(line for line in said.splitlines()[-lines:] if line.strip())


class Lab:
    """The program, a folder for runs, and the undisturbed reference runs."""

    def __init__(self, program, seed, sanitized=None):
        self.program = os.path.realpath(program)
        # The same program built with AddressSanitizer, or None.
        self.sanitized = sanitized and os.path.realpath(sanitized)
        self.random = random.Random(seed)
        self.scratch = os.path.realpath(tempfile.mkdtemp(prefix="disttrain-faults."))
        self.library = os.path.join(self.scratch, "interpose.so")
        subprocess.run([os.path.join(HERE, "build.sh"), self.library], check=True)
        self.references = {}
        self.lock = threading.RLock()
        self.count = 0
        self.mounts = []
        commands = subprocess.run([self.program, "checkpoint", "--help"], capture_output=True, text=True, check=False)
        self.can_verify, self.can_reshard = (
            re.search(rf"^ +{name} ", commands.stdout, re.MULTILINE) is not None for name in ("verify", "reshard"))

    def close(self):
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", mount], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def place(self, name):
        """A new path in the scratch folder."""
        with self.lock:
            self.count += 1
            return os.path.join(self.scratch, f"{self.count:05d}-{name}")

    def reference(self, ranks, **settings):
        """The undisturbed run with these ranks and settings, with all its checkpoints."""
        with self.lock:
            key = (ranks, json.dumps(settings, sort_keys=True))
            if key not in self.references:
                self.references[key] = Reference(self, ranks, settings)
            return self.references[key]

    def checkpoint(self, *arguments):
        """Runs `checkpoint …`; returns its exit code and its output."""
        result = subprocess.run(
            [self.program, "checkpoint", *arguments], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr


class Job:
    """One start of the program on a run folder."""

    def __init__(self, lab, output, ranks=2, fault=None, resume="auto", launch=False, stdout=None, stderr=None,
                 command="train", program=None, **settings):
        program = program or lab.program
        self.lab, self.run, self.ranks = lab, RunFolder(output), ranks
        self.log = lab.place("log")
        self.output = lab.place("output")
        os.makedirs(self.log + ".tmp")
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive",
                           OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        # Keep the leftovers of killed jobs in the scratch folder instead of /tmp and /dev/shm.
        environment["OMPI_MCA_orte_tmpdir_base"] = self.log + ".tmp"
        environment["OMPI_MCA_btl_vader_backing_directory"] = self.log + ".tmp"
        self.fault = fault = fault or Fault()
        self.folder = os.path.join(self.run.path, fault.folder).rstrip("/")
        injected = {"LD_PRELOAD": lab.library, "FAULT_LOG": self.log, "FAULT_PATH": self.folder,
                    "FAULT_EXCEPT": os.path.join(self.run.path, fault.without) if fault.without else "",
                    "FAULT_RANK": fault.rank if ranks > 0 else "alone", "FAULT_ACTION": fault.action,
                    "FAULT_CALL": fault.call, "FAULT_FILE": fault.file, "FAULT_TO": fault.to,
                    "FAULT_AT": str(fault.at), "FAULT_TIMES": str(fault.times), "FAULT_SECONDS": str(fault.seconds),
                    "FAULT_UNTIL": fault.until, "FAULT_ONCE": fault.once, "FAULT_LIE": fault.lie}
        train = [command, "--config", os.path.join(HERE, "faults.yaml"), "--output", output, "--resume", resume]
        for key, value in settings.items():
            train += ["--set", f"{key.replace('__', '.')}={value}"]
        assignments = ["env"] + [f"{key}={value}" for key, value in injected.items()]
        if launch:
            # mpirun loads the library too, but makes no counted calls.
            line = assignments + [program, "launch", "-n", str(ranks), "--threads", "1", "--"] + train
        elif ranks == 0:
            line = assignments + [program] + train
        else:
            line = ["mpirun", "-n", str(ranks), "--host", f"localhost:{ranks}", "--mca", "plm", "isolated",
                    "--mca", "ras", "^slurm,tm,gridengine,lsf", "--oversubscribe", "--bind-to", "none",
                    "--mca", "mpi_yield_when_idle", "1"] + assignments + [program] + train
        with open(self.output, "wb") as file:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=stdout or file, stderr=stderr or file, env=environment,
                start_new_session=True)

    def rank_pids(self):
        """The pids of the ranks started so far, by rank."""
        found = {}
        for rank in ["alone"] + [str(rank) for rank in range(self.ranks)]:
            try:
                with open(f"{self.log}.{rank}", encoding="utf-8", errors="replace") as file:
                    lines = [line for line in file if line.startswith("pid ")]
            except FileNotFoundError:
                continue
            if lines:
                found[rank] = int(lines[-1].split()[1])
        return found

    def calls(self, rank="0"):
        """The logged calls of a rank."""
        found, counts = [], collections.Counter()
        try:
            with open(f"{self.log}.{rank if self.ranks else 'alone'}", encoding="utf-8", errors="replace") as file:
                for line in file:
                    parts = line.rstrip("\n").split("\t")
                    if len(parts) != 5:
                        continue
                    address = (parts[1], pattern_of(parts[3], self.folder),
                               pattern_of(parts[4], self.folder) if parts[4] else "")
                    counts[address] += 1
                    found.append(Call(parts[0] == "!", *parts[1:], *address[1:], counts[address]))
        except FileNotFoundError:
            pass
        return found

    def hits(self, rank="0"):
        """The calls that had the fault."""
        return [call for call in self.calls(rank) if call.is_hit]

    def kill_all(self):
        """Kills every rank and mpirun at once."""
        for pid in [*self.rank_pids().values(), self.process.pid]:
            kill(pid)

    def wait_for_ranks(self, timeout=ENDLESS):
        """Waits until every rank has started and ended, even if mpirun has not; returns False after the timeout."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            # If there are ranks, "alone" refers to launch and mpirun.
            pids = {rank: pid for rank, pid in self.rank_pids().items() if (rank == "alone") == (self.ranks == 0)}
            if len(pids) >= max(1, self.ranks) and not any(is_alive(pid) for pid in pids.values()):
                return True
            time.sleep(0.01)
        return False

    def wait(self, timeout=ENDLESS):
        """Waits for the job and all its ranks, and returns how it ended."""
        hung = False
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            hung = True
            self.kill_all()
            self.process.wait()
        deadline = time.monotonic() + ENDLESS
        while any(is_alive(pid) for pid in self.rank_pids().values()):
            if time.monotonic() > deadline:
                hung = True
                self.kill_all()
                break
            time.sleep(0.01)
        self.seconds = time.monotonic() - self.started
        shutil.rmtree(self.log + ".tmp", ignore_errors=True)
        code = self.process.returncode
        return Ending(code if code >= 0 else 128 - code, read(self.output).decode(errors="replace"), hung)


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def is_alive(pid):
    """Whether a process is running; a zombie does not count."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return re.sub(r"^.*\)", "", file.read()).split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Reference:
    """The results of an undisturbed run: the tensors of every checkpoint, all losses, the final model."""

    def __init__(self, lab, ranks, settings):
        run = RunFolder(lab.place("reference"))
        self.job = Job(lab, run.path, ranks, checkpoint__keep_last=1000, **settings)
        ending = self.job.wait()
        if ending.code != 0:
            raise SystemExit(f"the undisturbed run ended with {ending.label}: {ending.text}")
        self.run = run
        self.seconds = self.job.seconds
        self.checkpoints = {step: run.checkpoint(step).digests for step in run.steps()}
        self.losses = run.losses()
        self.model = run.model()
        assert [step for step, _ in self.losses] == list(range(1, max(self.checkpoints) + 1)), self.losses
