"""Checkpoints damaged outside the program: it must detect and report the damage and use the previous checkpoint."""

import json
import os
import shutil

from checkpoint import RunFolder, read, write_manifest
from trial import Trial

SHARD = "unet/diffusion_pytorch_model-00002-of-00002.safetensors"
MOMENTS = "exp_avg_sq/diffusion_pytorch_model-00001-of-00002.safetensors"
INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"


def truncate(path, keep):
    size = os.path.getsize(path)
    os.truncate(path, keep(size))


def flip(path, at):
    data = bytearray(read(path))
    data[at if at >= 0 else len(data) + at] ^= 0x10
    with open(path, "wb") as file:
        file.write(data)


def swap(one, other):
    first, second = read(one), read(other)
    for path, data in ((one, second), (other, first)):
        with open(path, "wb") as file:
            file.write(data)


def replace_folder(path, other):
    shutil.rmtree(path)
    shutil.copytree(other, path)


# name -> (the file that the message must name, a function that damages the newest checkpoint; it also receives the
# previous one and that of another run)
DAMAGES = {
    "shard truncated by a byte": (SHARD, lambda new, old, other: truncate(f"{new}/{SHARD}", lambda size: size - 1)),
    "shard truncated to half": (MOMENTS, lambda new, old, other: truncate(f"{new}/{MOMENTS}", lambda size: size // 2)),
    "shard empty": (SHARD, lambda new, old, other: truncate(f"{new}/{SHARD}", lambda size: 0)),
    "shard with a byte too many": (SHARD, lambda new, old, other: truncate(f"{new}/{SHARD}", lambda size: size + 1)),
    "bit flipped in a tensor": (MOMENTS, lambda new, old, other: flip(f"{new}/{MOMENTS}", -1000)),
    "bit flipped in the last byte": (SHARD, lambda new, old, other: flip(f"{new}/{SHARD}", -1)),
    "bit flipped in a header": (SHARD, lambda new, old, other: flip(f"{new}/{SHARD}", 100)),
    "bit flipped in a header's length": (SHARD, lambda new, old, other: flip(f"{new}/{SHARD}", 1)),
    "bit flipped in an index": (INDEX, lambda new, old, other: flip(f"{new}/{INDEX}", 200)),
    "bit flipped in a config": ("unet/config.json", lambda new, old, other: flip(f"{new}/unet/config.json", 20)),
    "bit flipped in the manifest": ("manifest.json", lambda new, old, other: flip(f"{new}/manifest.json", 300)),
    "manifest truncated": ("manifest.json", lambda new, old, other: truncate(f"{new}/manifest.json", lambda n: n // 2)),
    "manifest empty": ("manifest.json", lambda new, old, other: truncate(f"{new}/manifest.json", lambda n: 0)),
    "manifest missing": ("manifest.json", lambda new, old, other: os.remove(f"{new}/manifest.json")),
    "shard missing": (MOMENTS, lambda new, old, other: os.remove(f"{new}/{MOMENTS}")),
    "index missing": (INDEX, lambda new, old, other: os.remove(f"{new}/{INDEX}")),
    "folder missing": ("exp_avg", lambda new, old, other: shutil.rmtree(f"{new}/exp_avg")),
    "shard of another step": (SHARD, lambda new, old, other: shutil.copy(f"{old}/{SHARD}", f"{new}/{SHARD}")),
    "shard of another run": (MOMENTS, lambda new, old, other: shutil.copy(f"{other}/{MOMENTS}", f"{new}/{MOMENTS}")),
    "shards of two folders swapped":
        ("exp_avg", lambda new, old, other: swap(f"{new}/{MOMENTS}", f"{new}/{MOMENTS.replace('_sq', '')}")),
    "manifest of another step":
        ("", lambda new, old, other: shutil.copy(f"{old}/manifest.json", f"{new}/manifest.json")),
    "all of another step": ("", lambda new, old, other: replace_folder(new, old)),
}


def stopped_run(lab, ranks=2):
    """A run in the state after a kill following step 4: checkpoints of steps 2 and 4, and metrics of later steps."""
    path = lab.place("stopped")
    shutil.copytree(lab.reference(ranks).run.path, path)
    shutil.rmtree(RunFolder(path).checkpoint_path(6))
    shutil.rmtree(os.path.join(path, "model"))
    return path


def tasks(lab, options):
    start = stopped_run(lab)
    other = lab.reference(2, seed=1).run.checkpoint_path(4)
    return [lambda name=name: [one_damaged(lab, start, other, name)] for name in DAMAGES] + [
        lambda: [all_damaged(lab, start)], lambda: [newer_version(lab, start)]]


def one_damaged(lab, start, other, name):
    trial = Trial(lab, "checkpoint damaged", name, 2, start=start, keep_last=1000)
    new, old = trial.run.checkpoint_path(4), trial.run.checkpoint_path(2)
    file, damage = DAMAGES[name]
    damage(new, old, other)
    trial.result.injected += 1
    trial.committed.discard(4)
    trial.damaged.add(4)
    if lab.can_verify:
        code, text = lab.checkpoint("verify", new)
        trial.expect(code == 3 and file in text, f"`checkpoint verify` ends with {code}: {text.strip()}")
    ending = trial.finish()
    trial.expect("Resuming from" in ending.text and "step-00000002" in ending.text,
                 f"not resumed from step 2: {ending.tail()}")
    trial.expect(any(file in line and "step-00000004" in line for line in ending.text.splitlines()),
                 f"no word of {file}: {ending.text}")
    return trial.done()


def digest(path):
    return {os.path.join(folder, name): read(os.path.join(folder, name))
            for folder, _, names in os.walk(path) for name in names}


def refused(trial, words):
    """The run must be rejected with these words, and its checkpoints must be unchanged."""
    before = digest(trial.run.checkpoints)
    trial.result.injected += 1
    job = trial.start()
    ending = trial.wait(job)
    trial.expect(ending.code == 3, f"ended with {ending.label}, expected 3: {ending.tail()}")
    for word in words:
        trial.expect(word in ending.text, f"no word of '{word}': {ending.text}")
    if digest(trial.run.checkpoints) != before:
        trial.lose(4, "was changed by the refused run")


def all_damaged(lab, start):
    """If none of several checkpoints is intact, starting over would discard the run."""
    trial = Trial(lab, "checkpoint damaged", "every checkpoint", 2, start=start, keep_last=1000)
    for step in (2, 4):
        flip(f"{trial.run.checkpoint_path(step)}/{SHARD}", -1)
    refused(trial, [SHARD])
    for step in (2, 4):
        flip(f"{trial.run.checkpoint_path(step)}/{SHARD}", -1)
    trial.finish()
    return trial.done()


def newer_version(lab, start):
    """A checkpoint of a newer program version is rejected: using an older one would discard later progress."""
    trial = Trial(lab, "manifest of a newer version", "", 2, start=start, keep_last=1000)
    path = f"{trial.run.checkpoint_path(4)}/manifest.json"
    manifest = json.loads(read(path))
    original = read(path)
    write_manifest(path, {**manifest, "format_version": 99})
    refused(trial, ["step-00000004", "99"])
    with open(path, "wb") as file:
        file.write(original)
    trial.finish()
    return trial.done()
