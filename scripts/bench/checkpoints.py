"""Checkpoints of ours and of torch.distributed.checkpoint in turns: the rows "checkpoint" of compare.py.

unet_70m's weights and both moments in fp32, 2 ranks × 1 thread. Nothing else runs; what is read is in the page cache. Ours
verifies every byte as it loads, PyTorch has no checksums.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

MODEL = "unet_70m.json"
RANKS, OTHER_RANKS = 2, 3
STATES = ["sharded", "replicated"]


def compare(runner, rounds, place):
    """Prints the table. `place` is an existing folder on the disk to measure."""
    ours, peer, plain = {}, {}, []
    states = {key: STATES for key in ["save", "save without fsync", "load", "load by others"]}
    for _ in range(rounds):
        for key, seconds in own(runner, place).items():
            ours.setdefault(key, []).append(seconds)
        for key, found in theirs(runner, place, states).items():
            peer.setdefault(key, []).append(min(found.values()))
            states[key] = [min(found, key=found.get)]  # Of several ways the fastest goes on.
        plain.append(dd(place, own_bytes(ours)))
        print("checkpoint: " + ", ".join(
            f"{key} {ours[key][-1]:.3f} / {peer[key][-1]:.3f}" for key in ["save", "load", "load by others"]),
            file=sys.stderr, flush=True)
    megabytes = own_bytes(ours) / 1e6
    print(f"\n| checkpoint of {MODEL.removesuffix('.json')}, {megabytes:.0f} MB, seconds | ours | PyTorch | ratio |\n"
          "|---|---|---|---|")
    titles = {
        "save": f"save, {RANKS} ranks, fsync", "save without fsync": "the same, PyTorch without fsync",
        "load": f"load, {RANKS} ranks", "load by others": f"load by {OTHER_RANKS} ranks what {RANKS} saved",
    }
    for key, title in titles.items():
        own_time = statistics.median(ours["save" if key == "save without fsync" else key])
        peer_time = statistics.median(peer[key])
        print(f"| {title} | {own_time:.3f} | {peer_time:.3f}, {states[key][0]} | {peer_time / own_time:.2f} |")
    print(f"\n`dd bs=4M conv=fsync` of as many bytes takes {statistics.median(plain):.3f} s, plain writing by {RANKS} ranks "
          f"{statistics.median(ours['plain']):.3f} s. Medians of {rounds} runs in turns, {runner.count} calls each.")


def own_bytes(ours):
    return ours["bytes"][-1]


def own(runner, place):
    def bench(ranks, *more):
        return runner.run([
            runner.program, "launch", "-n", str(ranks), "--threads", "1", "--", "bench", "checkpoint", "--unet",
            runner.config(MODEL), "--precision", "fp32", "--batch", "1", "--steps", "1", "--repeats", runner.count,
            "--folder", place, "--json", *more])[0]

    same, other = bench(RANKS), bench(OTHER_RANKS, "--saved-by", str(RANKS))
    return {"save": same["save_seconds"], "load": same["load_seconds"], "load by others": other["load_other_seconds"],
            "plain": same["plain_write_seconds"], "bytes": same["bytes"]}


def theirs(runner, place, states):
    """For each measure, the seconds of each state that is still asked for."""
    def bench(ranks, state, folder, *more):
        return runner.torchrun(
            "peer_checkpoint.py", ranks, "--config", runner.config(MODEL), "--count", runner.count, "--state", state,
            "--folder", folder, *more)[0]

    found = {key: {} for key in states}
    for state in STATES:
        wanted = [key for key in states if state in states[key]]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory(dir=place) as folder:
            if "save without fsync" in wanted:
                found["save without fsync"][state] = bench(RANKS, state, folder, "--no-fsync")["save_seconds"]
            report = bench(RANKS, state, folder)
            if "save" in wanted:
                found["save"][state] = report["save_seconds"]
            if "load" in wanted:
                found["load"][state] = report["load_seconds"]
            if "load by others" in wanted:
                found["load by others"][state] = bench(OTHER_RANKS, state, folder, "--load")["load_seconds"]
    return found


def dd(place, count):
    """Seconds that dd takes to write so many bytes and flush them; the median of three."""
    seconds = []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for _ in range(3):
            path = os.path.join(folder, "plain")
            start = time.perf_counter()
            subprocess.run(
                ["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={count}", "iflag=count_bytes", "conv=fsync",
                 "status=none"], check=True)
            seconds.append(time.perf_counter() - start)
            os.unlink(path)
    return statistics.median(seconds)
