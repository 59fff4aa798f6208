"""The faults of the soak test: each function injects one fault, keeps it active for a random time and removes it."""

import os
import shutil
import signal
import subprocess
import time

import base
from job import rank_of

OTHERS = (1, 2)  # the hosts that do not run the launcher
HOSTS = (0, 1, 2)


def alive(soak, hosts):
    """A random host among those that are up."""
    return soak.random.choice([host for host in hosts if soak.cluster.keepers[host] is not None])


def ranks(soak, host):
    """The rank processes on a host, as (pid, start time)."""
    found = []
    for pid in soak.cluster.pids(host, str(soak.training.run.folder)):
        try:
            if rank_of(pid) is not None:
                found.append((pid, base.start_time(pid)))
        except OSError:
            pass
    return found


def send(process, number):
    """Sends a signal to a process, unless its pid has been reused by another one."""
    pid, started = process
    if started is not None and base.start_time(pid) == started:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_ranks(soak, host):
    for process in ranks(soak, host):
        send(process, signal.SIGKILL)


# Processes


def rank_killed(soak):
    kill_ranks(soak, alive(soak, HOSTS))


def rank_stopped(soak):
    """SIGSTOP, followed by SIGCONT after 2 to 40 s or never."""
    stopped = ranks(soak, alive(soak, HOSTS))
    for process in stopped:
        send(process, signal.SIGSTOP)
    wakes = soak.random.random() < 0.6
    try:
        soak.hold(2, 40)
    finally:
        if wakes:
            for process in stopped:
                send(process, signal.SIGCONT)


def mpirun_killed(soak):
    for pid in soak.cluster.pids(0, "mpirun "):
        send((pid, base.start_time(pid)), signal.SIGKILL)


def host_processes_killed(soak):
    soak.cluster.signal(alive(soak, OTHERS), signal.SIGKILL)


# Hosts and links


def power_cut(soak):
    host = alive(soak, OTHERS)
    soak.cluster.kill_host(host)
    try:
        soak.hold(5, 40)
    finally:
        soak.cluster.start_host(host)
        soak.cluster.mend(host)


def power_cut_of_the_launcher(soak):
    """The host of the launcher and rank 0 fails; the command is repeated there when the host is up again."""
    before = len(soak.training.run.attempts)
    with soak.training.suspended("host lost power"):
        soak.cluster.kill_host(0)
        try:
            soak.hold(5, 20)
        finally:
            soak.cluster.start_host(0)
            soak.cluster.mend(0)
    soak.wait_for_start(before)


def link_cut(soak):
    host = alive(soak, HOSTS)
    soak.cluster.cut(host)
    try:
        soak.hold(2, 40)
    finally:
        soak.cluster.mend(host)


def host_frozen(soak):
    host = alive(soak, OTHERS)
    soak.cluster.freeze(host)
    try:
        soak.hold(2, 40)
    finally:
        soak.cluster.thaw(host)


def slow_network(soak):
    soak.cluster.shape(bandwidth="20mbit", latency_ms=soak.random.choice([0, 5, 20]))
    try:
        soak.hold(5, 30)
    finally:
        soak.cluster.shape()


def ssh_refused(soak):
    """A host that is running, but cannot be reached by ssh when the job is restarted."""
    host = alive(soak, OTHERS)
    soak.cluster.refuse_ssh(host)
    try:
        kill_ranks(soak, host)
        soak.hold(5, 30)
    finally:
        soak.cluster.allow_ssh(host)


def host_keeps_failing(soak):
    """The host's ranks die as soon as they train, three times."""
    host = alive(soak, OTHERS)
    for _ in range(3):
        kill_ranks(soak, host)
        if not soak.wait_for_training(60):
            return


# Hosts in a bad state at a restart


def other_build(soak):
    host = alive(soak, HOSTS)
    soak.cluster.replace_file(host, soak.program, soak.other_program)
    try:
        kill_ranks(soak, host)
        soak.hold(5, 40)
    finally:
        soak.cluster.run(host, ["umount", "--lazy", soak.program])


def folder_not_mounted(soak):
    host = alive(soak, OTHERS)
    soak.cluster.run(host, ["mount", "-t", "tmpfs", "tmpfs", soak.disk.folder], check=True)
    try:
        kill_ranks(soak, host)
        soak.hold(5, 40)
    finally:
        soak.cluster.run(host, ["umount", "--lazy", soak.disk.folder])


# Storage


def disk_frozen(soak):
    soak.disk.freeze()
    try:
        soak.hold(5, 40, quiet=True)
    finally:
        soak.disk.thaw()


def disk_full(soak):
    soak.disk.fill()
    try:
        soak.hold(5, 40)
    finally:
        soak.disk.free()


# Clocks


def clock_jump(soak):
    """The wall clock of the first host is changed by up to a day and stays so until the next jump."""
    soak.clock.set(soak.random.choice([-86400, -3600, -30, 0, 30, 3600, 86400]))


# The launcher


def launcher_told(soak):
    """SIGTERM; the same command is repeated after the launcher has ended."""
    before = len(soak.training.run.attempts)
    soak.training.signal(signal.SIGTERM)
    soak.wait_for_start(before)


def launcher_killed(soak):
    """SIGKILL; the same command is repeated at once or after a delay."""
    before = len(soak.training.run.attempts)
    with soak.training.suspended("killed"):
        soak.training.signal(signal.SIGKILL)
        if soak.random.random() < 0.5:
            soak.hold(1, 30, quiet=True)
    soak.wait_for_start(before)


# (fault, relative frequency with which it is drawn)
ALL = [
    (rank_killed, 2), (rank_stopped, 2), (mpirun_killed, 1), (host_processes_killed, 1), (power_cut, 2),
    (power_cut_of_the_launcher, 0.5), (link_cut, 2), (host_frozen, 1), (slow_network, 0.5), (ssh_refused, 0.5),
    (host_keeps_failing, 0.5), (other_build, 1), (folder_not_mounted, 1), (disk_frozen, 2), (disk_full, 2),
    (clock_jump, 1.5), (launcher_told, 1), (launcher_killed, 1.5),
]


# Infrastructure for the faults


class Disk:
    """A separate ext4 file system that can be frozen and filled."""

    SIZE = 160 << 20

    def __init__(self, image, folder):
        self.image, self.folder = image, folder
        self.filler = folder / "filler"

    def mount(self):
        if not self.image.exists():
            with open(self.image, "wb") as file:
                file.truncate(self.SIZE)
            base.command(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], "making a file system")
        self.folder.mkdir(exist_ok=True)
        base.command(["mount", "-o", "loop", self.image, self.folder], "mounting it")
        self.filler.unlink(missing_ok=True)

    def unmount(self):
        self.thaw()
        for _ in range(50):
            if subprocess.run(["umount", self.folder], capture_output=True).returncode == 0:
                return
            time.sleep(0.2)

    def freeze(self):
        base.command(["fsfreeze", "--freeze", self.folder], "freezing the disk")

    def thaw(self):
        subprocess.run(["fsfreeze", "--unfreeze", self.folder], capture_output=True, env=os.environ | {"PATH": base.SEARCH})

    def fill(self):
        with open(self.filler, "wb", buffering=0) as file:
            while True:
                try:
                    free = shutil.disk_usage(self.folder).free
                    if free >= 1 << 20:
                        os.posix_fallocate(file.fileno(), file.tell(), free // 2)
                        file.seek(0, os.SEEK_END)
                    else:
                        file.write(bytes(4096))
                except OSError:
                    return

    def free(self):
        self.filler.unlink(missing_ok=True)


class Clock:
    """An offset added to the wall clock of the programs that are started with `environment`."""

    def __init__(self, folder):
        self.library, self.file = folder / "clock.so", folder / "clock"
        base.command(["cc", "-shared", "-fPIC", "-O2", "-o", self.library, base.HERE.parents[1] / "Tests/Cluster/clock.c",
                      "-ldl"], "building the clock")
        self.set(0)

    def set(self, seconds):
        # Write in place, because programs have mapped the file.
        with open(self.file, "r+b" if self.file.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))

    @property
    def environment(self):
        return {"LD_PRELOAD": str(self.library), "TEST_CLOCK": str(self.file)}
