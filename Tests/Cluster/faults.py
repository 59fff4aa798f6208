"""Faults of training hosts. Each function injects one fault into a job and checks the outcome."""

import os
import signal
import time

from job import PROGRAM, Job, check_nothing_is_left, rank_of, require, wait_until


class Outcome:
    """A row of the table: seconds until the launcher noticed, seconds until the job trained again, and steps lost."""

    def __init__(self, noticed=None, again=None, lost=None, note=""):
        self.noticed, self.again, self.lost, self.note = noticed, again, lost, note


def disturb(cluster, folder, reference, act, *, after=None, same_ranks=True, alive=(0, 1, 2), options=()):
    """Starts a job, injects a fault and follows the job to its end.

    - act: called once the job has made some steps after a checkpoint
    - after: called as soon as the job trains again
    - alive: hosts on which no process may be left
    """
    job = Job(cluster, folder, options=options)
    try:
        job.wait_for_checkpoint()
        began, clock = time.monotonic(), time.time()
        act(cluster)
        wait_until(lambda: len(job.run.attempts) > 1 or job.process.poll() is not None, 120, "a second start")
        require(len(job.run.attempts) > 1, f"no second start:\n{job.log}")
        first, second = job.run.attempts[:2]
        resumed = second["firstStep"]
        lost = max(first["lastStep"] or 0, resumed) - resumed
        wait_until(lambda: job.run.is_training(second), 120, "training again")
        again = time.monotonic() - began
        if after:
            after(cluster)
        require(job.end() == 0, f"exit code {job.process.returncode}:\n{job.log}")
        job.run.check_equal(reference, same_ranks)
        require(lost <= 40 + 10, f"{lost} steps lost")
        require(again <= 30, f"{again:.0f} s until training again, expected 30 at most")
        check_nothing_is_left(cluster, folder, alive)
        return Outcome(first["endedAt"] - clock, again, lost, first["message"])
    finally:
        job.stop()


def rank_killed(cluster, folder, reference):
    return disturb(cluster, folder, reference, lambda c: c.signal(1, signal.SIGKILL, "disttrain train"))


def rank_stopped(cluster, folder, reference):
    """The host and its Open MPI daemon stay alive."""
    return disturb(cluster, folder, reference, lambda c: c.signal(2, signal.SIGSTOP, "disttrain train"))


def first_rank_stopped(cluster, folder, reference):
    """Rank 0, which monitors the others."""
    def act(c):
        stopped = [pid for pid in c.pids(0, "disttrain train") if rank_of(pid) == "0"]
        require(len(stopped) == 1, f"found {len(stopped)} processes of rank 0 on node0")
        os.kill(stopped[0], signal.SIGSTOP)
    return disturb(cluster, folder, reference, act)


def first_rank_killed(cluster, folder, reference):
    """Rank 0, which monitors the others: the launcher does not wait until mpirun detects the failure."""
    def act(c):
        killed = [pid for pid in c.pids(0, "disttrain train") if rank_of(pid) == "0"]
        require(len(killed) == 1, f"found {len(killed)} processes of rank 0 on node0")
        os.kill(killed[0], signal.SIGKILL)
    outcome = disturb(cluster, folder, reference, act)
    require(outcome.noticed <= 10, f"noticed after {outcome.noticed:.0f} s, expected 10 at most")
    return outcome


def processes_killed(cluster, folder, reference):
    """All processes of the job on one host, including the Open MPI daemon."""
    return disturb(cluster, folder, reference, lambda c: c.signal(2, signal.SIGKILL))


def power_cut(cluster, folder, reference):
    """A host disappears without closing its connections, and the job continues on the remaining two."""
    outcome = disturb(cluster, folder, reference, lambda c: c.kill_host(2), same_ranks=False, alive=(0, 1))
    cluster.start_host(2)
    cluster.mend(2)
    return outcome


def link_cut(cluster, folder, reference):
    """The host stays alive, and its ranks must exit by themselves."""
    def act(c):
        c.cut(1)
    outcome = disturb(cluster, folder, reference, act, same_ranks=False)
    cluster.mend(1)
    return outcome


def frozen_and_thawed(cluster, folder, reference):
    """The host resumes when the others have long continued without it."""
    return disturb(cluster, folder, reference, lambda c: c.freeze(1), after=lambda c: c.thaw(1), same_ranks=False)


# Faults that slow a job down but do not end it.

def runs_through(cluster, folder, reference, prepare, restore, note):
    prepare()
    job = None
    try:
        job = Job(cluster, folder)
        began = time.monotonic()
        require(job.end(600) == 0, f"exit code {job.process.returncode}:\n{job.log}")
        require(len(job.run.attempts) == 1, f"{len(job.run.attempts)} starts, expected 1:\n{job.log}")
        job.run.check_equal(reference, same_ranks=True)
        check_nothing_is_left(cluster, folder, (0, 1, 2))
        return Outcome(note=f"{note}; {time.monotonic() - began:.0f} s in all")
    finally:
        if job:
            job.stop()
        restore()


def slow_network(cluster, folder, reference):
    return runs_through(cluster, folder, reference, lambda: cluster.shape(bandwidth="100mbit"), cluster.shape,
                        "100 Mbit/s")


def late_network(cluster, folder, reference):
    return runs_through(cluster, folder, reference, lambda: cluster.shape(latency_ms=5), cluster.shape,
                        "10 ms for a round trip")


def dead_interface(cluster, folder, reference):
    def each(action):
        for host in range(3):
            action(host)
    return runs_through(cluster, folder, reference, lambda: each(cluster.add_dead_interface),
                        lambda: each(cluster.remove_interface), "docker0 on every host")


# Conditions under which a job is rejected before it starts.

def refused(cluster, folder, prepare, restore, words):
    prepare()
    job = None
    try:
        job = Job(cluster, folder)
        began = time.monotonic()
        code = job.end(60)
        require(code == 2, f"exit code {code}, expected 2:\n{job.log}")
        require(words in job.log, f"'{words}' is not in:\n{job.log}")
        require("mpirun" not in job.log, f"mpirun was started:\n{job.log}")
        line = [line for line in job.log.splitlines() if line.startswith("Error")][-1]
        return Outcome(time.monotonic() - began, note=line.removeprefix("Error: "))
    finally:
        if job:
            job.stop()
        restore()


def ssh_refused(cluster, folder, reference):
    return refused(cluster, folder, lambda: cluster.refuse_ssh(2), lambda: cluster.allow_ssh(2), "node2: cannot be reached")


def program_missing(cluster, folder, reference):
    return refused(cluster, folder, lambda: cluster.hide_file(1, PROGRAM), lambda: cluster.show_file(1, PROGRAM),
                   "install this program there")


def other_build(cluster, folder, reference):
    """The same program except for an additional byte at its end."""
    other = cluster.folder / "shared" / "other-build"
    other.write_bytes(PROGRAM.read_bytes() + b"\0")
    other.chmod(0o755)
    return refused(cluster, folder, lambda: cluster.replace_file(1, PROGRAM, other),
                   lambda: cluster.show_file(1, PROGRAM), "install the same build")


def name_unknown(cluster, folder, reference):
    return refused(cluster, folder, lambda: cluster.forget_name(2), cluster.remember_names, "node2")


ALL = [
    rank_killed, first_rank_killed, rank_stopped, first_rank_stopped, processes_killed, power_cut, link_cut, frozen_and_thawed,
    slow_network, late_network, dead_interface, ssh_refused, program_missing, other_build, name_unknown,
]
