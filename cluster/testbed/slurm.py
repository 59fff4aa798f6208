#!/usr/bin/env python3
"""A real Slurm on one machine: munged, slurmctld and slurmd on hosts of their own (hosts.py), in their own network.

    with Slurm(2) as s:
        job = s.sbatch("#!/bin/bash\\nmpirun hostname\\n", "--nodes=2")
        s.wait(job, "COMPLETED", timeout=60)

Jobs run on node0, node1 …; slurmctld runs on one more host, `head`, where sbatch and the like are called from. All
faults of hosts.py are there too: kill_host(1), cut(1), freeze("head"). Nothing of an installed Slurm is used but its
programs.

Jobs of the partition `urgent` preempt those of `normal` and `cheap`: those that asked for a signal
(`--signal=B:USR1@60`) get it at once, all get SIGTERM `grace_seconds` later; those of `normal` then go back into the
queue, those of `cheap` are cancelled.

From a shell: `slurm.py up 2`, `slurm.py run head -- sinfo`, `slurm.py down`, `slurm.py clean`.
"""

import os
import re
import shutil
import signal

import base
from base import TestbedError, wait_until
from hosts import Cluster

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}


class Slurm(Cluster):
    """`count` nodes with `cpus` processors each, as Slurm believes, and a head; other arguments as for Cluster."""

    packages = ["hosts", "slurm"]

    def __init__(self, count, name=None, share=(), cpus=2, grace_seconds=20, **options):
        super().__init__(count, name, share, **options)
        self.cpus = cpus
        self.grace_seconds = grace_seconds
        self.configuration = self.folder / "etc" / "slurm.conf"

    @staticmethod
    def host_names(count):
        return [*Cluster.host_names(count), "head"]

    def environment(self, extra=None):
        # This process may itself be part of a job of another Slurm cluster.
        kept = {key: value for key, value in super().environment().items() if not key.startswith("SLURM_")}
        return kept | {"SLURM_CONF": str(self.configuration)} | (extra or {})

    # Start and end

    def up(self):
        """Makes hosts and daemons and waits until every node is idle; some 3 s."""
        super().up()
        try:
            self.start_controller()
            for index in range(self.size):
                self.start_slurmd(index)
            for index in range(self.size):
                self.wait_node(index, "IDLE", 30)
        except BaseException:
            self.down()
            raise
        return self

    def start_host(self, host):
        """Brings back a host after `kill_host`, with its daemons."""
        super().start_host(host)
        if self.hostname(host) == "head":
            self.start_controller()
        else:
            self.start_slurmd(host)

    def start_controller(self):
        """Starts slurmctld; it takes up its state, with all jobs, from where it was killed."""
        self._daemon("head", "slurmctld", "-L", self.folder / "log" / "slurmctld.log")
        wait_until(lambda: self.run("head", ["scontrol", "ping"]).returncode == 0, 20, "slurmctld answers", every=0.1)

    def kill_controller(self):
        """Kills slurmctld with SIGKILL; jobs run on."""
        self._kill_daemon("head", "slurmctld")

    def start_slurmd(self, node):
        """Starts slurmd on a node, as at the boot of the host."""
        self._daemon(node, "slurmd", "-N", self.hostname(node), "-L", self.folder / "log" / f"slurmd.{node}.log")

    def kill_slurmd(self, node):
        """Kills slurmd with SIGKILL; its job steps live on. `SlurmdTimeout`, 10 s, later the node is DOWN."""
        self._kill_daemon(node, "slurmd")

    # Jobs

    def sbatch(self, script, *arguments, cwd=None, env=None):
        """Submits a script, a path or a text that begins with #!, and returns the number of its job."""
        text = str(script)
        if text.startswith("#!"):
            path = self.folder / "shared" / f"script-{os.urandom(4).hex()}.sbatch"
            path.write_text(text)
        else:
            path = os.path.abspath(script)
        cwd = cwd or self.folder / "shared"
        # Arguments of the script follow it, and those of sbatch precede it: "--" separates them.
        split = arguments.index("--") if "--" in arguments else len(arguments)
        line = ["sbatch", "--parsable", *arguments[:split], path, *arguments[split + 1:]]
        done = self.run("head", line, cwd=cwd, env=env, check=True)
        return int(done.stdout.split(";")[0])

    def job(self, job):
        """All that `scontrol show job` says: {"JobState": "RUNNING", "Restarts": "1", "NodeList": "node0", …}."""
        shown = self.run("head", ["scontrol", "--oneliner", "show", "job", str(job)], check=True).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def state(self, job):
        return self.job(job)["JobState"]

    def wait(self, job, states, timeout):
        """Waits until a job is in one of `states` ("RUNNING", or several) and returns which; fails if it ended in
        another."""
        wanted = {states} if isinstance(states, str) else set(states)

        def reached():
            state = self.state(job)
            if state in FINAL and state not in wanted:
                raise TestbedError(f"job {job} ended {state}, expected {' or '.join(sorted(wanted))}")
            return state if state in wanted else None

        return wait_until(reached, timeout, f"job {job} is {' or '.join(sorted(wanted))}", every=0.3)

    def wait_restarts(self, job, count, timeout):
        """Waits until a job runs again after `count` requeues."""
        def reached():
            shown = self.job(job)
            return shown["JobState"] == "RUNNING" and int(shown["Restarts"]) >= count
        wait_until(reached, timeout, f"job {job} runs after {count} requeues", every=0.3)

    def scancel(self, job, *arguments):
        """Cancels a job, or, with "--signal=USR1", "--batch" and the like, sends it a signal."""
        self.run("head", ["scancel", *arguments, str(job)], check=True)

    def requeue(self, job):
        self.scontrol("requeue", job)

    def scontrol(self, *arguments):
        return self.run("head", ["scontrol", *map(str, arguments)], check=True).stdout

    # Nodes

    def node_state(self, node):
        """Such as "IDLE", "ALLOCATED", "DOWN", "IDLE+DRAIN", "DOWN*" (the star: it does not answer)."""
        shown = self.scontrol("--oneliner", "show", "node", self.hostname(node))
        return re.search(r"State=(\S+)", shown)[1]

    def wait_node(self, node, state, timeout):
        wait_until(lambda: self.node_state(node).rstrip("*") == state, timeout, f"{self.hostname(node)} is {state}",
                   every=0.2)

    def node_down(self, node, reason="test"):
        """As an administrator sets it: jobs on the node are requeued, or fail where they forbid that."""
        self.scontrol("update", f"NodeName={self.hostname(node)}", "State=DOWN", f"Reason={reason}")

    def node_resume(self, node, timeout=20):
        """Undoes `node_down`. Slurm refuses it for a node that has come back by itself, and while the node is changing."""
        def is_back():
            if self.node_state(node).startswith("DOWN"):
                self.run("head", ["scontrol", "update", f"NodeName={self.hostname(node)}", "State=RESUME"])
            return not self.node_state(node).startswith("DOWN")
        wait_until(is_back, timeout, f"{self.hostname(node)} is back", every=0.2)

    # Implementation

    def _daemon(self, host, program, *arguments):
        """Starts a program that goes to the background by itself."""
        program = shutil.which(program, path=base.SEARCH)
        self.run(host, [program, *arguments], stdout=None, cwd="/", check=True, timeout=30)

    def _kill_daemon(self, host, program):
        name = shutil.which(program, path=base.SEARCH)
        for pid in self.pids(host):
            if base.command_line(pid)[:1] == [name]:
                os.kill(pid, signal.SIGKILL)

    def _boot(self, index):
        super()._boot(index)
        run = "/run/munge"  # the host's own, and where every program looks for the socket
        self.run(index, ["mkdir", "-m", "755", run], check=True)
        self._daemon(index, "munged", f"--key-file={self.folder}/etc/munge.key", f"--pid-file={run}/munged.pid",
                     f"--seed-file={run}/seed", f"--log-file={run}/munged.log")

    def _write_settings(self):
        super()._write_settings()
        for folder in ("log", "slurm"):
            (self.folder / folder).mkdir()
        key = self.folder / "etc" / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        nodes = "\n".join(f"NodeName=node{i} NodeAddr={self.address(i)} CPUs={self.cpus} State=UNKNOWN"
                          for i in range(self.size))
        self.configuration.write_text(f"""\
ClusterName=testbed
SlurmctldHost=head({self.address("head")})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={self.folder}/slurm/state
SlurmdSpoolDir={self.folder}/slurm/spool.%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# No cgroups: hosts share those of the machine. Sixteen hosts of two processors may stand on two.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
# Everything soon, so that tests are short. A requeued job may start again when its old credentials have expired:
# 120 s after, by default.
AuthInfo=cred_expire=5
SchedulerParameters=bf_interval=1,batch_sched_delay=1,sched_interval=1,sched_min_interval=100000
KillWait=5
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=5
BatchStartTimeout=10
MinJobAge=600
InactiveLimit=0
ReturnToService=1
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={self.grace_seconds}
PartitionName=cheap Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={self.grace_seconds} PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
""")


if __name__ == "__main__":
    import cli
    cli.main(Slurm)
