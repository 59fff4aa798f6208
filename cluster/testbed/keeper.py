"""The first process of a host, or of the fabric that joins the hosts: makes the namespaces and holds them open.

    keeper.py disttrain-testbed CLUSTER ROLE OWNER SETTINGS

Prints `pid N` (as seen from outside) and `ready`, or an error. SETTINGS is JSON; OWNER is the reading end of a pipe
whose writing end the test program holds, or -1. When the test program dies, however it dies, the pipe ends, so
does this process, and with it, by the kernel's rules for the first process of a PID namespace, everything inside:
processes, mounts, network devices. That is why nothing can be left behind.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(arguments)}: {done.stderr.strip()}")


def mount_private(settings):
    """Own /tmp, /dev/shm and /run, an /etc that knows the hosts, and no ssh settings but the cluster's."""
    # Open the shared folders before /tmp is covered; they are mounted again on top of it afterwards.
    shared = [(path, os.open(path, os.O_PATH)) for path in settings["share"]]
    groups = os.open("/sys/fs/cgroup", os.O_PATH)
    run("mount", "-t", "sysfs", "sysfs", "/sys")  # /sys/class/net shows the network that it was mounted in
    # Do not canonicalize: the canonical path would refer to the newly mounted folder.
    run("mount", "--no-canonicalize", "--rbind", f"/proc/1/fd/{groups}", "/sys/fs/cgroup")
    os.close(groups)
    for folder, mode in [("/tmp", "1777"), ("/dev/shm", "1777"), ("/run", "755")]:
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", folder)
    os.mkdir("/run/sshd")
    if os.path.isdir("/root/.ssh"):
        run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", "/root/.ssh")
    for target, source in settings["files"].items():
        run("mount", "--bind", source, target)
    for path, handle in shared:
        os.makedirs(path, exist_ok=True)
        run("mount", "--no-canonicalize", "--bind", f"/proc/1/fd/{handle}", path)
        os.close(handle)


def set_up(settings):
    run("mount", "--make-rslave", "/")  # mounts made here stay here; what is unmounted outside goes here too
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind = line.split()[:3]
        if kind == "nsfs":  # a copy of this mount would keep someone else's namespace alive
            subprocess.run(["umount", "--lazy", folder], capture_output=True)
    run("mount", "-t", "proc", "proc", "/proc")
    run("ip", "link", "set", "lo", "up")
    for scope in ("all", "default"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():  # one family of addresses is enough, and link-local ones mislead
            switch.write_text("1")
    if "hostname" in settings:
        hostname = settings["hostname"].encode()
        if ctypes.CDLL(None, use_errno=True).sethostname(hostname, len(hostname)) != 0:
            raise OSError(f"sethostname: {os.strerror(ctypes.get_errno())}")
        mount_private(settings)
        run(settings["sshd"], "-f", settings["sshd_config"])


def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def remove(folder):
    """Removes the cluster's folder although hosts may still be dying in it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)
    try:
        os.rmdir(os.path.dirname(folder))
    except OSError:
        pass  # other clusters


def keep(owner, settings):
    signal.signal(signal.SIGCHLD, reap)
    reap()
    if owner < 0:
        while True:
            signal.pause()
    select.select([owner], [], [])
    if "remove" in settings:
        remove(settings["remove"])


def main():
    owner, settings = int(sys.argv[4]), json.loads(sys.argv[5])
    os.chdir("/")
    flags = NEWNS | NEWIPC | NEWPID | NEWNET | (NEWUTS if "hostname" in settings else 0)
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        sys.exit(f"error unshare: {os.strerror(ctypes.get_errno())}")
    child = os.fork()  # the first process of the new PID namespace
    if child:
        print(f"pid {child}", flush=True)
        return
    os.setsid()  # a Ctrl-C at the terminal is for the test program
    try:
        set_up(settings)
    except Exception as error:
        print(f"error {error}", flush=True)
        return
    print("ready", flush=True)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    keep(owner, settings)


if __name__ == "__main__":
    main()
