#!/usr/bin/env python3
"""Injects faults into training runs and checks that nothing is lost: kills, failing and slow file calls, power
failures, full, read-only and stalled disks, damaged checkpoints, temporarily failing reads, other numbers of ranks,
truncated lines, blocked pipes, clocks set back, an NFS server that is restarted.

After each fault: every committed checkpoint exists and is unchanged; the run resumes from the newest intact one, with a
clear message; its weights, moments, averages and losses are bitwise identical to those of an undisturbed run.

    Tests/Faults/run.py                           minutes
    Tests/Faults/run.py --kills 200 --every 1     all
"""

import argparse
import collections
import concurrent.futures
import os
import re
import signal
import sys
import time
import traceback

import auxiliary
import calls
import damage
import disks
import kills
import origin
import nfs
import reads
import sanitizer
import stalls
import surroundings
from lab import HERE, REPOSITORY, Lab
from trial import Outcome

FAMILIES = {
    "kills": kills.tasks,
    "calls": calls.tasks,
    "files": calls.file_tasks,
    "auxiliary": auxiliary.tasks,
    "origin": origin.tasks,
    "reads": reads.tasks,
    "sanitizer": sanitizer.tasks,
    "nfs": nfs.tasks,
    "power": disks.power_tasks,
    "disks": disks.full_tasks,
    "stalls": stalls.tasks,
    "damage": damage.tasks,
    "ranks": surroundings.rank_tasks,
    "metrics": surroundings.metrics_tasks,
    "pipes": surroundings.pipe_tasks,
    "time": surroundings.time_tasks,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8, help="kills at random moments (default 8)")
    parser.add_argument("--every", type=int, default=1000, metavar="K",
                        help="fail every K-th call of each kind; 1 for all (default 1000: one of each kind)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and of the choice of calls")
    parser.add_argument("--only", action="append", metavar="NAME", choices=FAMILIES,
                        help=f"one family of faults: {', '.join(FAMILIES)}; may be given many times")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--program", default=os.path.join(REPOSITORY, ".build/release/disttrain"))
    parser.add_argument("--sanitized", metavar="PROGRAM",
                        help="the program built with AddressSanitizer, for the family sanitizer (make test-address)")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs with a violation")
    return parser.parse_args()


def attempt(task, family):
    try:
        outcomes = task()
        if any(outcome.problems and outcome.crashes_of_mpirun for outcome in outcomes):
            print(f"note: mpirun itself crashed, once more: {outcomes[0].fault}: {outcomes[0].detail}", flush=True)
            outcomes = task()
        return outcomes
    except Exception:  # An error in the test itself counts as a violation too.
        return [Outcome(family, "the test itself", problems=[traceback.format_exc()])]


def known_failures():
    """A pattern for known failures; such problems are listed separately and do not count as violations."""
    try:
        with open(os.path.join(HERE, "known_failures.txt"), encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        lines = []
    return re.compile("|".join(lines or ["(?!)"]))


def carry_out(lab, options):
    """Runs all tasks and returns their outcomes; violations are printed as they occur."""
    outcomes, known = [], known_failures()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        pending = [pool.submit(attempt, task, family) for family in options.only or FAMILIES
                   for task in FAMILIES[family](lab, options)]
        for count, future in enumerate(concurrent.futures.as_completed(pending), 1):
            for outcome in future.result():
                outcomes.append(outcome)
                for problem in list(outcome.problems):
                    text = f"{outcome.fault}: {outcome.detail}: {problem}"
                    is_known = known.search(text) is not None
                    if is_known:
                        outcome.problems.remove(problem)
                        outcome.known += 1
                    print(f"{'KNOWN' if is_known else 'VIOLATION'}  {text}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{count}/{len(pending)}", end="", file=sys.stderr)
    return outcomes


def table(outcomes):
    rows = {}
    for outcome in outcomes:
        rows.setdefault(outcome.fault, []).append(outcome)
    lines = [("fault", "cases", "exit codes", "restarts", "lost", "weights equal", "known", "violations")]
    for fault, group in rows.items():
        reasons = {outcome.skipped for outcome in group if outcome.skipped}
        if reasons:
            lines.append((fault, "skipped", "; ".join(reasons), "", "", "", "", ""))
            continue
        codes = collections.Counter(label for outcome in group for label in outcome.endings)
        compared = [outcome for outcome in group if outcome.is_equal is not None]
        lines.append((
            fault, str(len(group)), ", ".join(f"{code} ×{count}" for code, count in sorted(codes.items())),
            str(sum(outcome.restarts for outcome in group)), str(sum(outcome.lost for outcome in group)),
            f"{sum(outcome.is_equal for outcome in compared)} of {len(compared)}",
            str(sum(outcome.known > 0 for outcome in group)), str(sum(bool(outcome.problems) for outcome in group))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def main():
    options = arguments()
    started = time.monotonic()
    # Convert SIGTERM to an exit, so that the cleanup below unmounts and removes everything.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lab = Lab(options.program, options.seed, options.sanitized)
    try:
        outcomes = carry_out(lab, options)
    finally:
        if options.keep:
            print(f"kept: {lab.scratch}")
        else:
            lab.close()
    table(outcomes)
    violations = sum(bool(outcome.problems) for outcome in outcomes)
    total = {name: sum(getattr(outcome, name) for outcome in outcomes)
             for name in ("kills", "injected", "restarts", "lost")}
    print(f"{len(outcomes)} cases: {total['kills']} kills, {total['injected']} injected failures, "
          f"{total['restarts']} restarts, {total['lost']} checkpoints lost, {violations} violations, "
          f"in {time.monotonic() - started:.0f} s, seed {options.seed}")
    return 1 if violations or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
