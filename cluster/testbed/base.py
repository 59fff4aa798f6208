"""What every part of the test bed shares: its error, its folder, its checks, and how it finds its own processes."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PREFIX = "disttrain-testbed"  # is in the command line of every process that keeps a namespace: `clean` finds it by that
ROOT = Path("/var/tmp") / PREFIX  # on disk, since checkpoints are written below it; one folder a cluster
HERE = Path(__file__).resolve().parent
SEARCH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"  # root's path may lack the latter two


class TestbedError(Exception):
    """A fault that the user can mend, told in one line: what, where, found, expected, what to do."""

    __test__ = False  # pytest collects classes named Test*


def require_root():
    if os.geteuid() != 0:
        raise TestbedError(f"the test bed makes namespaces and needs root, found user {os.geteuid()}: run it with sudo")


def require_packages(*parts):
    """Checks, with deps.sh, for the commands of 'hosts' and 'slurm'."""
    found = subprocess.run([HERE / "deps.sh", "--check", *parts], capture_output=True, text=True)
    if found.returncode != 0:
        raise TestbedError(found.stderr.strip().removeprefix("deps: "))


def require_name(name):
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name) or len(name) > 40:
        raise TestbedError(f"cluster name '{name}': expected 1 to 40 letters, digits, '-' or '_'")


def command(arguments, what, **options):
    """Runs a helper program to its end; a failure becomes one line that says what was tried."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True,
                          env=os.environ | {"PATH": SEARCH}, **options)
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split()) or "no message"
        raise TestbedError(f"{what}: {arguments[0]} exited {done.returncode}: {reason}")
    return done.stdout


def wait_until(condition, seconds, what, every=0.02):
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TestbedError(f"{what}: not so after {seconds:g} s")
        time.sleep(every)


# Processes. Process IDs are reused, so a process is identified by its ID and its start time.


def start_time(pid):
    """Clock ticks since boot at which the process started, or None when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def all_pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def keepers(name=None):
    """The first processes of the namespaces of one cluster, or of all: [(pid, cluster, role)]."""
    found = []
    for pid in all_pids():
        words = command_line(pid)
        # python3 -I …/keeper.py disttrain-testbed NAME ROLE …
        if len(words) > 5 and words[3] == PREFIX and words[2].endswith("keeper.py") and name in (None, words[4]):
            found.append((pid, words[4], words[5]))
    return found


def kill_keepers(found):
    """Kills first processes of namespaces; the kernel then kills all others in them and takes down their networks."""
    for pid, _, _ in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for pid, cluster, role in found:
        wait_until(lambda: start_time(pid) is None, 10, f"end of {role} of cluster {cluster} (process {pid})")


def in_use(name):
    """Whether the program that started a cluster, and that will end it, still runs."""
    try:
        owner = json.loads((ROOT / name / "owner.json").read_text())
    except FileNotFoundError:
        return False
    return start_time(owner["pid"]) == owner["started"]


def clean(name=None):
    """Ends the processes and removes the folder of one cluster, or of all but those whose test program still runs;
    returns the names of what it removed and of what it left.

    Nothing else can be left: mounts, network devices and namespaces end with the processes that live in them.
    """
    require_root()
    names = {cluster for _, cluster, _ in keepers()} | set(os.listdir(ROOT) if ROOT.is_dir() else [])
    left = {other for other in names if name is None and in_use(other)}
    removed = {other for other in names if name in (None, other)} - left
    for other in removed:
        kill_keepers(keepers(other))
        shutil.rmtree(ROOT / other, ignore_errors=True)
    remove_root()
    return sorted(removed), sorted(left)


def remove_root():
    """The folder of all clusters goes with the last of them."""
    try:
        ROOT.rmdir()
    except OSError:
        pass  # other clusters, or gone


def pids_inside(keeper):
    """All processes in the PID namespace whose first process is `keeper`, that one left out."""
    def space(pid):
        try:
            return os.readlink(f"/proc/{pid}/ns/pid")
        except OSError:  # gone, or, of the machine's first process in a container, secret
            return None
    wanted = space(keeper)
    return [pid for pid in all_pids() if pid != keeper and wanted and space(pid) == wanted]
