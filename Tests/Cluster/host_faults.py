"""Hosts that return in a bad state or keep failing, a killed launcher, unauthenticated connections, and heterogeneous
hosts."""

import os
import signal
import sys
import time

import base
from faults import Outcome, disturb
from job import PROGRAM, Job, Run, check_nothing_is_left, rank_of, require, wait_until


def kill_ranks(cluster, host):
    """Kills only the ranks on a host; mpirun also has their command in its arguments."""
    for pid in cluster.pids(host, "disttrain train"):
        try:
            if rank_of(pid) is not None:
                os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass  # the process has ended


# Hosts in a bad state


def other_build(cluster):
    """The same program except for an additional byte at its end."""
    other = cluster.folder / "shared" / "other-build"
    other.write_bytes(PROGRAM.read_bytes() + b"\0")
    other.chmod(0o755)
    return other


def comes_back_bad(cluster, folder, reference, host, spoil, restore, words):
    """A host is in a bad state when the job is restarted: it is excluded, and the job continues on the others."""
    job_log = []

    def act(c):
        spoil()
        kill_ranks(c, host)

    def after(c):
        job_log.append((folder.parent / f"{folder.name}.log").read_text())
    try:
        outcome = disturb(cluster, folder, reference, act, after=after, same_ranks=False)
    finally:
        restore()
    require(words in job_log[0], f"'{words}' is not in:\n{job_log[0]}")
    hosts = Run(folder).attempts[1]["hosts"]
    require(len(hosts) == 2 and f"{cluster.hostname(host)}:1" not in hosts, f"the second start was on {hosts}")
    return outcome


def other_build_at_a_restart(cluster, folder, reference):
    return comes_back_bad(
        cluster, folder, reference, 2, lambda: cluster.replace_file(2, PROGRAM, other_build(cluster)),
        lambda: cluster.show_file(2, PROGRAM), "excluded for now: node2: has disttrain")


def other_build_on_the_first_host(cluster, folder, reference):
    """The host that is listed first and runs the launcher: the healthy hosts are not reported as faulty."""
    return comes_back_bad(
        cluster, folder, reference, 0, lambda: cluster.replace_file(0, PROGRAM, other_build(cluster)),
        lambda: cluster.show_file(0, PROGRAM), "excluded for now: node0: has disttrain")


def folder_not_mounted(cluster, folder, reference):
    """The file system with the run folder is not mounted yet on a host that has returned."""
    top = folder.parent
    return comes_back_bad(
        cluster, folder, reference, 1,
        lambda: cluster.run(1, ["mount", "-t", "tmpfs", "tmpfs", top], check=True),
        lambda: cluster.run(1, ["umount", "--lazy", top], check=True), "excluded for now: node1: does not share")


def bad_host_waited_for(cluster, folder, reference):
    """With --min-ranks equal to the number of ranks, the job waits until the host is healthy again."""
    def act(c):
        c.replace_file(1, PROGRAM, other_build(c))
        kill_ranks(c, 1)
        time.sleep(8)
        c.show_file(1, PROGRAM)
    return disturb(cluster, folder, reference, act, options=["--min-ranks", "3"])


# A host that keeps failing


def keeps_failing(cluster, folder, reference):
    """The host's rank dies at every start: the host is excluded after the second one, and no checkpoint is
    discarded."""
    job = Job(cluster, folder, options=["--max-restarts", "1"])
    try:
        job.wait_for_checkpoint()
        began = time.monotonic()
        failures = 0
        while True:
            attempt = job.run.attempts[-1]
            wait_until(lambda: job.run.is_training(job.run.attempts[-1]), 120, "training")
            attempt = job.run.attempts[-1]
            if "node1:1" not in attempt["hosts"]:
                break
            require(failures < 3, f"node1 is still there after {failures} failures:\n{job.log}")
            kill_ranks(cluster, 1)
            failures += 1
            number = len(job.run.attempts)
            wait_until(lambda: len(job.run.attempts) > number or job.process.poll() is not None, 60, "the next start")
            require(job.process.poll() is None, f"the launcher has given up:\n{job.log}")
        again = time.monotonic() - began
        require(failures == 2, f"node1 was left out after {failures} failures, expected 2:\n{job.log}")
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        require("node1: fails repeatedly and is excluded" in job.log, f"not reported:\n{job.log}")
        aside = [path.name for path in (folder / "checkpoints").glob("superseded-*")]
        require(not aside, f"checkpoints were discarded: {aside}\n{job.log}")
        job.run.check_equal(reference, same_ranks=False)
        return Outcome(again=again, lost=0, note=f"left out after {failures} failures, with --max-restarts 1")
    finally:
        job.stop()


# A launcher that is killed


def kill_launcher(cluster):
    found = [pid for pid in cluster.pids(0, f"{PROGRAM} launch --host")
             if base.command_line(pid)[0] == str(PROGRAM)]
    require(len(found) == 1, f"found {len(found)} launchers")
    os.kill(found[0], signal.SIGKILL)


def killed_and_repeated(cluster, folder, reference, wait, disturbance=None, repeats_at_once=False):
    job = Job(cluster, folder)
    try:
        wait(job)
        if disturbance:
            disturbance()
        began = time.monotonic()
        kill_launcher(cluster)
        job.process.wait(10)
    finally:
        job.stop()
    gone = None
    if not repeats_at_once:
        check_nothing_is_left(cluster, folder, (0, 1, 2))
        gone = time.monotonic() - began
        require(gone <= 30, f"processes remained for {gone:.0f} s")
        began = time.monotonic()
    starts, reached = len(job.run.attempts), job.run.step
    job = Job(cluster, folder)
    try:
        wait_until(lambda: len(job.run.attempts) > starts and job.run.is_training(job.run.attempts[-1]), 60, "training again")
        again = time.monotonic() - began
        resumed = job.run.attempts[-1]["firstStep"] or 0
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        job.run.check_equal(reference, same_ranks=True)
        return Outcome(gone, again, max(0, reached - resumed), "the same command continues")
    finally:
        job.stop()


def launcher_killed(cluster, folder, reference):
    """All processes on all hosts exit within 30 s."""
    return killed_and_repeated(cluster, folder, reference, lambda job: job.wait_for_checkpoint())


def launcher_killed_and_repeated(cluster, folder, reference):
    """The same command is repeated at once, while the ranks are still saving."""
    return killed_and_repeated(cluster, folder, reference, lambda job: job.wait_for_checkpoint(), repeats_at_once=True)


def launcher_killed_with_a_stopped_rank(cluster, folder, reference):
    return killed_and_repeated(
        cluster, folder, reference, lambda job: job.wait_for_checkpoint(),
        lambda: cluster.signal(2, signal.SIGSTOP, "disttrain train"))


def launcher_killed_early(cluster, folder, reference):
    """The launcher is killed while mpirun starts the ranks."""
    return killed_and_repeated(
        cluster, folder, reference,
        lambda job: wait_until(lambda: cluster.pids(0, "mpirun ") or job.run.attempts, 30, "mpirun runs", every=0.01))


# Unauthenticated connections


STRANGER = """
import os, select, socket, sys, time
address, ports, seconds = sys.argv[1], [int(port) for port in sys.argv[2].split(",")], float(sys.argv[3])
lines = [b"GET / HTTP/1.0\\r\\n\\r\\n", b"\\n" * 65536, b'{"hello":{"token":"x","rank":1,"host":"x","pid":1}}\\n', b""]
sockets = []
for port in ports:
    for index in range(300):
        try:
            one = socket.create_connection((address, port), timeout=1)
            one.setblocking(False)
            one.send(lines[index % 4])
            sockets.append(one)
        except OSError:
            pass
received, closed, end = 0, 0, time.monotonic() + seconds
while sockets and time.monotonic() < end:
    for one in select.select(sockets, [], [], 0.5)[0]:
        try:
            data = one.recv(65536)
        except OSError:
            data = b""
        if data:
            received += len(data)
        else:
            closed += 1
            sockets.remove(one)
print(received, closed, len(sockets))
"""


def watcher_ports(cluster):
    """The TCP ports on which rank 0 listens, including those of Open MPI."""
    rank0 = [pid for pid in cluster.pids(0, "disttrain train") if rank_of(pid) == "0"]
    require(len(rank0) == 1, f"found {len(rank0)} processes of rank 0")
    sockets = set()
    for name in os.listdir(f"/proc/{rank0[0]}/fd"):
        try:
            target = os.readlink(f"/proc/{rank0[0]}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    with open(f"/proc/{rank0[0]}/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {int(row[1].split(":")[1], 16): row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def port_scan(cluster, folder, reference):
    """Another host connects to every port of rank 0 and sends nothing, a web request, newlines or a forged hello
    message: the job continues, and none of the connections receives a heartbeat."""
    job = Job(cluster, folder)
    try:
        job.wait_for_checkpoint()
        ports = watcher_ports(cluster)
        require(ports, "rank 0 listens on no port")
        found = cluster.run(1, [sys.executable, "-c", STRANGER, cluster.address(0), ",".join(map(str, ports)), "12"],
                            check=True).stdout.split()
        received, closed, left = map(int, found)
        # The ports include Open MPI's own, which waits for its handshake.
        require(received == 0 and closed * len(ports) >= closed + left,
                f"strangers have received {received} bytes; {closed} of {closed + left} connections were closed")
        require(job.process.poll() is None or job.process.returncode == 0, f"the job has ended:\n{job.log}")
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        require(len(job.run.attempts) == 1, f"{len(job.run.attempts)} starts, expected 1:\n{job.log}")
        job.run.check_equal(reference, same_ranks=True)
        return Outcome(note=f"{closed + left} connections to {len(ports)} ports: {closed} closed, {received} bytes received")
    finally:
        job.stop()


# Heterogeneous hosts


def mixed_processors(cluster, folder, reference):
    """One host is limited to AVX2, and the program chooses the precision: either the same on all ranks, or a one-line
    error."""
    settings = cluster.folder / "etc" / "sshd.1"
    before = settings.read_text()
    cluster.refuse_ssh(1)
    settings.write_text(before + "SetEnv ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell\n")
    cluster.allow_ssh(1)
    job = None
    try:
        job = Job(cluster, folder, settings={"train.precision": "auto"})
        code = job.end()
        lines = [line for line in job.log.splitlines() if line.startswith("Error")]
        require(code == 0 or (code == 2 and len(lines) == 1), f"exit code {code}:\n{job.log}")
        require(len(job.run.attempts) == 1, f"{len(job.run.attempts)} starts, expected 1:\n{job.log}")
        return Outcome(note="trained" if code == 0 else lines[0])
    finally:
        if job:
            job.stop()
        cluster.refuse_ssh(1)
        settings.write_text(before)
        cluster.allow_ssh(1)


def low_limit_of_files(cluster, folder, reference):
    """ulimit -n: a low soft limit is raised; under a low hard limit the job either trains or prints a one-line
    error."""
    job = Job(cluster, folder, hosts=(), wrapper=["prlimit", "--nofile=24:4096"])
    try:
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        # On a single host, Open MPI sums in another order.
        job.run.check_equal(reference, same_ranks=False)
    finally:
        job.stop()
    hard = Job(cluster, f"{folder}-hard", hosts=(), wrapper=["prlimit", "--nofile=40:40"])
    try:
        code = hard.end()
        line = next((line for line in hard.log.splitlines() if "ulimit -n" in line), "")
        require(code == 0 or line, f"exit code {code}, and no line names ulimit -n:\n{hard.log}")
        return Outcome(note="24 raised; 40 at most: " + ("trained" if code == 0 else line))
    finally:
        hard.stop()


# Before the first checkpoint


def dies_before_its_first_checkpoint(cluster, folder, reference):
    """A run that started from another run's checkpoint restarts from that checkpoint, not from initial weights."""
    job = Job(cluster, folder, steps=240, options=["--min-ranks", "3"], resume=reference.folder,
              settings={"train.checkpoint_every": 200})
    try:
        wait_until(lambda: job.run.step >= 140 or job.process.poll() is not None, 120, "steps behind the other's last")
        kill_ranks(cluster, 1)
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        require(len(job.run.attempts) == 2, f"{len(job.run.attempts)} starts, expected 2:\n{job.log}")
        found = [step for step, _ in job.run.trace()]
        require(found == list(range(130, 241, 10)), f"logged steps {found}, expected 130 to 240:\n{job.log}")
        require(job.log.count("Resuming from") == 2, f"not resumed twice:\n{job.log}")
        return Outcome(note="the other run's checkpoint twice")
    finally:
        job.stop()


ALL = [
    other_build_at_a_restart, other_build_on_the_first_host, folder_not_mounted, bad_host_waited_for, keeps_failing,
    launcher_killed, launcher_killed_and_repeated, launcher_killed_with_a_stopped_rank, launcher_killed_early,
    port_scan, mixed_processors, low_limit_of_files, dies_before_its_first_checkpoint,
]
