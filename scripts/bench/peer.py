"""What the PyTorch side of every benchmark shares: arguments, ranks, timing, and the line of JSON.

Under torchrun the processes are ranks that talk over gloo; started alone, a script is the only one.
"""
import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.distributed as dist


def arguments(description, count_help):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="config.json of the model, as diffusers writes it")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=16, help="images a rank")
    parser.add_argument("--threads", type=int, default=1, help="threads a rank")
    parser.add_argument("--count", type=int, default=5, help=count_help)
    return parser


class Ranks:
    """The processes of the benchmark; rank 0 prints."""

    def __init__(self, threads):
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.is_root = int(os.environ.get("RANK", 0)) == 0
        if self.count > 1:
            dist.init_process_group("gloo")
        torch.set_num_threads(threads)
        torch.manual_seed(0)

    def slowest(self, values):
        """Each value's maximum over the ranks."""
        values = torch.tensor(values, dtype=torch.float64)
        if self.count > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values.tolist()

    def time(self, count, call):
        """Seconds of each of `count` calls, of the slowest rank, after one that warms up."""
        seconds = []
        for _ in range(count + 1):
            if self.count > 1:
                dist.barrier()
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return self.slowest(seconds[1:])

    def report(self, call, arguments, seconds, settings):
        """Prints what `disttrain bench --json` prints, as far as PyTorch knows it."""
        memory = int(self.slowest([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024])[0])
        if not self.is_root:
            return
        median = statistics.median(seconds)
        print(json.dumps({
            "program": f"pytorch {torch.__version__}", "settings": settings,
            "precision": arguments.precision, "ranks": self.count, "threads_per_rank": arguments.threads,
            "batch_per_rank": arguments.batch, f"seconds_per_{call}": round(median, 4),
            "images_per_second": round(self.count * arguments.batch / median, 2), "peak_rss_mib": memory,
            "fastest_seconds": round(min(seconds), 4), "slowest_seconds": round(max(seconds), 4),
        }), flush=True)

    def close(self):
        """Ends the process. Taking gloo's threads down can abort a rank ("terminate called without an active
        exception") after all has been measured, so they are left to the system."""
        if self.count > 1:
            dist.barrier()
            sys.stdout.flush()
            os._exit(0)


def load(model_class, path):
    """A model with random weights, channels last."""
    with open(path) as file:
        config = json.load(file)
    config.pop("_class_name", None)
    return model_class(**config).to(memory_format=torch.channels_last)


def forward_mode(model, arguments, mode):
    """The model for forward passes, the type of its inputs, and the context to call it in.

    bf16 comes in two ways: weights of that type ("weights"), or fp32 weights that autocast converts.
    """
    model = model.eval()
    if arguments.precision == "fp32":
        return model, torch.float32, contextlib.nullcontext()
    if mode == "weights":
        return model.to(torch.bfloat16), torch.bfloat16, contextlib.nullcontext()
    return model, torch.float32, torch.autocast("cpu", dtype=torch.bfloat16)
