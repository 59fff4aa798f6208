"""torch.distributed.checkpoint of a U-Net's training state: what `disttrain bench checkpoint` is held against.

Weights and AdamW's moments in fp32, as FSDP2 shards them over the ranks (DTensor, Shard(0)) or as DDP replicates them. Each
save goes to a new folder, and the one before is deleted outside of the time. With --load, loads alone, what any number of
ranks has saved. A load must give back what was saved, by its norm.
"""
import json
import os
import shutil
import statistics
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from diffusers import UNet2DModel
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import peer

parser = peer.arguments(__doc__, "timed saves and loads")
parser.add_argument("--state", choices=["sharded", "replicated"], default="sharded")
parser.add_argument("--no-fsync", action="store_true", help="leave the files to the page cache (sync_files=False)")
parser.add_argument("--folder", required=True, help="for the checkpoint; the last one stays")
parser.add_argument("--load", action="store_true", help="load what is in the folder, and save nothing")
arguments = parser.parse_args()
ranks = peer.Ranks(arguments.threads)
mesh = init_device_mesh("cpu", (ranks.count,)) if arguments.state == "sharded" else None


def training_state():
    """{"unet": {name: tensor}, "exp_avg": …, "exp_avg_sq": …}, the same values on any number of ranks."""
    parameters = peer.load(UNet2DModel, arguments.config).named_parameters()
    state = {"unet": {name: parameter.detach().contiguous() for name, parameter in parameters}}
    for moment in ["exp_avg", "exp_avg_sq"]:
        state[moment] = {name: torch.randn_like(values) for name, values in state["unet"].items()}
    if mesh:
        for tensors in state.values():
            for name, values in tensors.items():
                tensors[name] = distribute_tensor(values, mesh, [Shard(0)])
    return state


def parts(state):
    """What this rank holds."""
    for tensors in state.values():
        for values in tensors.values():
            yield values.to_local() if isinstance(values, DTensor) else values


def norms(state):
    return [values.double().norm().item() for values in parts(state)]


def timed(call):
    dist.barrier()
    start = time.perf_counter()
    call()
    return ranks.slowest([time.perf_counter() - start])[0]


def save(path):
    dcp.save(state, storage_writer=FileSystemWriter(path, sync_files=not arguments.no_fsync))


def load(path):
    before = norms(state)
    for values in parts(state):
        values.zero_()
    seconds = timed(lambda: dcp.load(state, storage_reader=FileSystemReader(path)))
    if norms(state) != before:
        raise SystemExit(f"{path}: loaded other values than were saved")
    return seconds


state = training_state()
path = os.path.join(arguments.folder, "checkpoint")
saves, loads = [], []
for _ in range(arguments.count + 1):  # The first warms up.
    if not arguments.load:
        if ranks.is_root:
            shutil.rmtree(path, ignore_errors=True)
        saves.append(timed(lambda: save(path)))
    loads.append(load(path))

if ranks.is_root:
    files = [os.path.join(path, name) for name in os.listdir(path)]
    report = {
        "program": f"pytorch {torch.__version__}", "ranks": ranks.count, "state": arguments.state,
        "fsync": not arguments.no_fsync, "bytes": sum(map(os.path.getsize, files)),
        "load_seconds": round(statistics.median(loads[1:]), 4),
    }
    if saves:
        report["save_seconds"] = round(statistics.median(saves[1:]), 4)
    print(json.dumps(report), flush=True)
ranks.close()
