#!/usr/bin/env python3
"""Proves that the test bed does what it says, on this machine; some four minutes, where the processors are idle.

    smoke.py [--binary .build/release/disttrain] [--only WORD]

Prints what was done, how long it took, what was found; exits 1 when something was not as it should be.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import base
import measure
from base import HERE, TestbedError, wait_until
from hosts import Cluster
from slurm import Slurm

REPOSITORY = HERE.parent.parent
# mpirun's daemons detect a dead connection after time + intvl × probes = 5 s; the default takes minutes.
NOTICE = ["--mca", "oob_tcp_keepalive_time", "2", "--mca", "oob_tcp_keepalive_intvl", "1",
          "--mca", "oob_tcp_keepalive_probes", "3"]


def expect(true, found):
    if not true:
        raise TestbedError(found)


SHAPES = [(None, 0), ("100mbit", 0), ("1000mbit", 0), (None, 5), ("100mbit", 5), ("1000mbit", 2)]
PATIENCE = 300  # seconds for what takes a few on an idle machine


# mpirun forwards only its own variables to other hosts; two spinning threads per rank would occupy the processors.
ONE_THREAD = ["-x", "OMP_NUM_THREADS=1"]


class Smoke:
    def __init__(self, binary, only):
        self.binary = binary
        self.only = only
        self.failures = 0

    def check(self, name, body, *arguments):
        """One row of the table. `body` returns what it found, or raises."""
        if self.only and self.only not in name:
            return
        start = time.monotonic()
        try:
            found, ok = body(*arguments) or "", "ok"
        except (TestbedError, subprocess.TimeoutExpired) as error:
            found, ok = str(error), "FAILED"
            self.failures += 1
        print(f"{name:34} {time.monotonic() - start:6.1f} s  {ok:6}  {found}", flush=True)

    # Training

    def training(self, folder, steps, batch=2):
        return [self.binary, "train", "--config", REPOSITORY / "configs" / "tiny.yaml", "--output", folder,
                "--set", f"train.steps={steps}", "--set", f"train.batch_size={batch}", "--set", "train.sample_every=0",
                "--set", "train.log_every=1"]

    def start_training(self, c, name, hosts, steps=5000, options=()):
        """Starts a run, waits until it trains, and returns its process and its log."""
        log = c.folder / "shared" / f"{name}.log"
        with log.open("w") as out:
            line = c.mpirun(self.training(c.folder / "shared" / name, steps), hosts, options=[*ONE_THREAD, *options])
            process = c.spawn(hosts[0], line, cwd="/", stdout=out, stderr=subprocess.STDOUT)
        wait_until(lambda: self.step(log) > 3 or process.poll() is not None, PATIENCE, f"{name} trains")
        expect(process.poll() is None, f"{name} ended {process.returncode}: {log.read_text()[-200:]}")
        return process, log

    def step(self, log):
        return max([int(step) for step in re.findall(r"^step +(\d+)/", log.read_text(), re.M)], default=0)

    def train(self, c, count):
        done = c.run(0, c.mpirun(self.training(c.folder / "shared" / f"train{count}", 50, batch=count), range(count),
                                 options=ONE_THREAD), cwd="/", timeout=PATIENCE, check=True, stderr=subprocess.STDOUT)
        expect(f"{count} ranks" in done.stdout and "step 50/50" in done.stdout,
               f"unexpected output: {done.stdout[-300:]}")
        return "50 steps"

    # The network

    def shaped(self, c, bandwidth, latency):
        c.shape(bandwidth=bandwidth, latency_ms=latency)
        try:
            rtt = measure.round_trip_us(c, 0, 1) / 1000
            there, back = measure.throughput_mbit(c, 0, 1), measure.throughput_mbit(c, 1, 0)
        finally:
            c.shape()
        found = f"round trip {rtt:.2f} ms, {there:.0f} and {back:.0f} Mbit/s"
        if bandwidth:
            asked = 0.957 * float(bandwidth.removesuffix("mbit"))  # Ethernet, IP and TCP headers take 4.3 %
            expect(0.9 * asked < min(there, back) and max(there, back) < 1.1 * asked,
                   f"{found}; asked {asked:.0f} Mbit/s")
        if latency:
            expect(2 * latency < rtt < 2 * latency * 1.1, f"{found}; asked {2 * latency} ms")
        return found

    def lossy(self, c):
        c.shape(loss_percent=5)
        try:
            lost = measure.loss_percent(c, 0, 1)
        finally:
            c.shape()
        expect(3.5 < lost < 6.5, f"{lost:.1f} % lost, asked 5 %")
        return f"{lost:.1f} % lost"

    def cut(self, c, unplug):
        process, _ = self.start_training(c, f"cut{unplug}", [0, 1], options=NOTICE)
        start = time.monotonic()
        c.cut(1, unplug)
        try:
            code = process.wait(timeout=40)
            noticed = time.monotonic() - start
            wait_until(lambda: not c.pids(1, "disttrain"), 30, "the cut-off rank ends by itself")
            return f"mpirun exited {code} after {noticed:.1f} s, rank cut off after {time.monotonic() - start:.1f} s"
        finally:
            process.kill()
            c.signal(1, pattern="disttrain")
            c.mend(1)
            process.wait()

    # Hosts

    def freeze(self, c):
        process, log = self.start_training(c, "freeze", [0, 1], options=NOTICE)
        c.freeze(1)
        time.sleep(1)
        before = self.step(log)
        time.sleep(8)
        expect(self.step(log) == before, "the run went on although a host was frozen")
        expect(process.poll() is None, "mpirun ended")
        c.thaw(1)
        wait_until(lambda: self.step(log) > before + 5, 30, "the run goes on after the thaw")
        process.terminate()
        return f"stood still for 9 s, unnoticed by mpirun, and went on; after SIGTERM {process.wait(timeout=60)}"

    def power(self, c):
        process, _ = self.start_training(c, "power", [0, 2], options=NOTICE)
        start = time.monotonic()
        c.kill_host(2)
        code = process.wait(timeout=60)
        noticed = time.monotonic() - start
        c.start_host(2)
        expect(c.run(0, ["ssh", "node2", "hostname"], timeout=20).stdout == "node2\n", "node2 did not come back")
        return f"mpirun exited {code} after {noticed:.1f} s; the host came back"

    def refused(self, c):
        c.refuse_ssh(1)
        done = c.run(0, ["ssh", "node1", "true"], timeout=20)
        expect(done.returncode == 255 and "refused" in done.stderr, f"ssh: {done.returncode} {done.stderr}")
        code = c.run(0, c.mpirun(["true"], [0, 1]), timeout=30).returncode
        c.allow_ssh(1)
        c.run(0, ["ssh", "node1", "true"], timeout=20, check=True)
        return f"ssh exits 255, mpirun {code}"

    def missing(self, c):
        c.hide_file(1, self.binary)
        done = c.run(0, c.mpirun([self.binary, "--help"], [0, 1]), timeout=30)
        expect(done.returncode != 0 and not c.run(0, ["test", "-e", self.binary]).returncode, "found in spite of it")
        c.show_file(1, self.binary)
        c.run(0, c.mpirun([self.binary, "--help"], [0, 1]), timeout=30, check=True)
        return f"mpirun exits {done.returncode}; back after show_file"

    def unknown(self, c):
        c.forget_name(1)
        done = c.run(0, ["ssh", "node1", "true"], timeout=20)
        expect("Could not resolve hostname" in done.stderr, f"ssh: {done.stderr}")
        code = c.run(0, c.mpirun(["true"], [0, 1]), timeout=30).returncode
        c.remember_names()
        c.run(0, c.mpirun(["true"], [0, 1]), timeout=30, check=True)
        return f"mpirun exits {code}"

    def dead_interface(self, c):
        for host in (0, 1):
            c.add_dead_interface(host)
        process, _ = self.start_training(c, "docker0", [0, 1])
        process.terminate()
        process.wait(timeout=60)
        for host in (0, 1):
            c.remove_interface(host)
        return "trains, since mpirun is told the network"

    # Nothing remains

    def abandoned(self):
        """A test program that is killed takes its cluster along."""
        program = f"import sys, time; sys.path.insert(0, {str(HERE)!r})\nfrom hosts import Cluster\n" \
                  "with Cluster(2, name='smoke-abandoned') as c:\n" \
                  "    c.shape(latency_ms=1); c.spawn(1, ['sleep', '1000'])\n" \
                  "    print('up', flush=True); time.sleep(1000)\n"
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        expect(len(base.keepers("smoke-abandoned")) == 3, "the cluster did not come up")
        process.kill()
        process.wait()
        process.stdout.close()
        wait_until(lambda: not base.keepers("smoke-abandoned") and not (base.ROOT / "smoke-abandoned").exists(), 10,
                   "nothing is left of a killed test")
        return "gone with its owner"

    # Slurm

    IN_A_JOB = "mpirun -x OMP_NUM_THREADS=1 --bind-to none --mca mpi_yield_when_idle 1"

    def batch(self, s):
        text = f"#!/bin/bash\n{self.IN_A_JOB} {self.line(s, 'batch', 50)}\n"
        job = s.sbatch(text, "--nodes=2", "--ntasks-per-node=1")
        s.wait(job, "COMPLETED", 120)
        output = (s.folder / "shared" / f"slurm-{job}.out").read_text()
        expect("2 ranks" in output and "step 50/50" in output, f"unexpected output: {output[-300:]}")
        return "50 steps on 2 nodes"

    def line(self, s, name, steps):
        return " ".join(map(str, self.training(s.folder / "shared" / name, steps)))

    def time_limit(self, s):
        """What a run that outlasts its allocation does: it is told in time, and asks for another one."""
        text = f"""#!/bin/bash
        if [[ ${{SLURM_RESTART_COUNT:-0}} == 1 ]]; then echo "started again"; exit 0; fi
        trap 'echo "told in time"; kill "$run"; scontrol requeue "$SLURM_JOB_ID"' USR1
        {self.IN_A_JOB} {self.line(s, 'limit', 50000)} &
        run=$!
        for ((i = 0; i < 100; i++)); do wait "$run"; sleep 1; done
        """
        job = s.sbatch(text.replace("\n        ", "\n"), "--nodes=2", "--ntasks-per-node=1", "--time=1",
                       "--signal=B:USR1@30", "--requeue", "--open-mode=append")
        s.wait(job, "RUNNING", 20)
        start = time.monotonic()
        output = s.folder / "shared" / f"slurm-{job}.out"
        wait_until(lambda: "told in time" in output.read_text(), 70, "the job is told of its limit", every=0.2)
        told = time.monotonic() - start
        s.wait(job, "COMPLETED", 60)
        expect(self.step(output) > 0 and "started again" in output.read_text(), "it did not run twice")
        return f"SIGUSR1 {told:.0f} s after the start, requeued and done {time.monotonic() - start - told:.0f} s later"

    SLEEPER = ("#!/bin/bash\ntrap 'echo told' USR1\nfor ((i = 0; i < 3000; i++)); do sleep 0.2 & wait; done\n",
               "--nodes=2", "--exclusive", "--requeue", "--open-mode=append", "--signal=B:USR1@60", "--time=60")

    def preempted(self, s):
        job = s.sbatch(*self.SLEEPER)
        s.wait(job, "RUNNING", 20)
        start = time.monotonic()
        urgent = s.sbatch("#!/bin/bash\nsleep 1\n", "--nodes=2", "--exclusive", "--partition=urgent")
        output = s.folder / "shared" / f"slurm-{job}.out"
        wait_until(lambda: "told" in output.read_text(), 20, "the preempted job is told", every=0.2)
        told = time.monotonic() - start
        s.wait(urgent, {"RUNNING", "COMPLETED"}, 60)
        runs = time.monotonic() - start
        s.wait_restarts(job, 1, 60)
        s.scancel(job)
        return f"told after {told:.0f} s, urgent job runs after {runs:.0f} s, preempted one again after " \
               f"{time.monotonic() - start:.0f} s"

    def node_failure(self, s):
        job = s.sbatch(*self.SLEEPER)
        s.wait(job, "RUNNING", 20)
        start = time.monotonic()
        s.kill_host(1)
        s.wait(job, "PENDING", 90)
        noticed = time.monotonic() - start
        s.start_host(1)
        s.wait_restarts(job, 1, 90)
        s.scancel(job)
        return f"requeued after {noticed:.0f} s, runs again after {time.monotonic() - start:.0f} s"

    def node_down(self, s):
        job = s.sbatch(*self.SLEEPER)
        s.wait(job, "RUNNING", 20)
        s.node_down(1)
        s.wait(job, "PENDING", 20)
        s.node_resume(1)
        start = time.monotonic()
        s.wait_restarts(job, 1, 60)
        s.scancel(job)
        s.wait(job, "CANCELLED", 20)
        return f"requeued at once, runs again {time.monotonic() - start:.0f} s after the node is back"

    def all(self):
        start = time.monotonic()
        with Cluster(4) as c:
            print(f"4 hosts up in {time.monotonic() - start:.1f} s", flush=True)
            for count in (2, 3, 4):
                self.check(f"mpirun trains on {count} hosts", self.train, c, count)
            for bandwidth, latency in SHAPES:
                self.check(f"network {bandwidth or 'unlimited'} +{latency} ms", self.shaped, c, bandwidth, latency)
            self.check("network with loss", self.lossy, c)
            self.check("link cut, carrier stays", self.cut, c, False)
            self.check("link unplugged", self.cut, c, True)
            self.check("host frozen and thawed", self.freeze, c)
            self.check("host loses power", self.power, c)
            self.check("ssh refused", self.refused, c)
            self.check("program missing on one host", self.missing, c)
            self.check("hostname unknown", self.unknown, c)
            self.check("interface that leads nowhere", self.dead_interface, c)
        self.check("test program killed", self.abandoned)
        start = time.monotonic()
        with Slurm(2, grace_seconds=10) as s:
            print(f"Slurm up in {time.monotonic() - start:.1f} s", flush=True)
            self.check("slurm: sbatch, mpirun on 2 nodes", self.batch, s)
            self.check("slurm: time limit, requeue", self.time_limit, s)
            self.check("slurm: preemption", self.preempted, s)
            self.check("slurm: node set down", self.node_down, s)
            self.check("slurm: node loses power", self.node_failure, s)
        return self.failures


def main():
    parser = argparse.ArgumentParser(description="Proves that the test bed works on this machine. Needs root.")
    parser.add_argument("--binary", type=Path, default=REPOSITORY / ".build" / "release" / "disttrain")
    parser.add_argument("--only", metavar="WORD", help="rows whose name contains WORD")
    given = parser.parse_args()
    binary = given.binary.resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"smoke: {binary} is no program: build it (make build), or name one with --binary")
    try:
        failures = Smoke(binary, given.only).all()
    except TestbedError as error:
        sys.exit(f"smoke: {error}")
    if failures:
        sys.exit(f"smoke: {failures} failed")
    print("all as it should be")


if __name__ == "__main__":
    main()
