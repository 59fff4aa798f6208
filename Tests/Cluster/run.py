#!/usr/bin/env python3
"""Injects faults of hosts, networks and Slurm into training jobs that run under `disttrain launch`.

    Tests/Cluster/run.py                      all of them, on network namespaces and a real Slurm; needs root
    Tests/Cluster/run.py --only cut,killed    those whose names contain one of these words
    Tests/Cluster/run.py --list

After each fault, the run must have reached its last step, with a curve without gap or repeat and, if the ranks were
the same, with the weights of an undisturbed run; no process may be left. Prints a table: fault, seconds until noticed,
seconds until training again, steps lost.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "cluster/testbed"))

import faults
import host_faults
import signals
import slurm_faults
from hosts import Cluster
from job import Failed, Job, Run, check_nothing_is_left, require
from slurm import Slurm


def number(value, digits=1):
    return "" if value is None else f"{value:.{digits}f}"


def run_all(tests, make_cluster, scratch, prepare):
    """Runs the tests in a shared cluster, which is replaced after a failure."""
    failures = 0
    cluster = None
    try:
        for test in tests:
            if cluster is None:
                cluster = make_cluster().up()
                reference = prepare(cluster, scratch)
            folder = scratch / f"{test.__name__}-{time.time_ns()}"
            began = time.monotonic()
            try:
                outcome = test(cluster, folder, reference)
                check_nothing_is_left(cluster, folder, range(cluster.size))
                lost = "" if outcome.lost is None else str(outcome.lost)
                print(f"| {test.__name__.replace('_', ' ')} | {number(outcome.noticed)} | {number(outcome.again)} "
                      f"| {lost} | {outcome.note} |", flush=True)
            except Failed as failure:
                failures += 1
                print(f"| {test.__name__.replace('_', ' ')} | FAILED after {time.monotonic() - began:.0f} s: {failure} |",
                      flush=True)
                cluster.down()
                cluster = None
    finally:
        if cluster is not None:
            cluster.down()
    return failures


def undisturbed(cluster, scratch):
    folder = scratch / "undisturbed"
    if not folder.exists():
        job = Job(cluster, folder)
        try:
            require(job.end() == 0, f"the undisturbed run ended with {job.process.returncode}:\n{job.log}")
        finally:
            job.stop()
    return Run(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="tests whose name contains one of these, by commas")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    words = arguments.only.split(",")
    chosen = [[test for test in tests if any(word in test.__name__ for word in words)]
              for tests in (faults.ALL + signals.ALL + host_faults.ALL, slurm_faults.ALL)]
    if arguments.list:
        for test in chosen[0] + chosen[1]:
            print(f"{test.__name__:24}{(test.__doc__ or '').strip()}")
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="disttrain-cluster.", dir="/var/tmp"))
    print("| fault | noticed, s | training again, s | steps lost | message |\n|---|---|---|---|---|", flush=True)
    failures = 0
    try:
        if chosen[0]:
            failures += run_all(chosen[0], lambda: Cluster(3), scratch, undisturbed)
        if chosen[1]:
            failures += run_all(chosen[1], lambda: Slurm(3), scratch, slurm_faults.prepare)
    finally:
        if failures == 0:
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            print(f"runs and logs are in {scratch}", file=sys.stderr)
    print(f"{failures} of {len(chosen[0]) + len(chosen[1])} failed" if failures else "all passed", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
