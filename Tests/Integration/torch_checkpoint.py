#!/usr/bin/env python3
"""Writes a file as torch.save does, without PyTorch: torch_checkpoint.py FILE.safetensors FILE.ckpt

Without a safetensors file (-), the weights are those of a small latent-diffusion checkpoint, with the names and shapes of
Tests/Fixtures/compvis/names.json and random values.
"""
import collections
import io
import json
import math
import pathlib
import pickle
import random
import struct
import sys
import types
import zipfile

# Modules that the pickle refers to by name.
for name in ("torch", "torch._utils"):
    sys.modules[name] = types.ModuleType(name)


def _rebuild_tensor_v2(*arguments):
    raise NotImplementedError


class FloatStorage:
    pass


_rebuild_tensor_v2.__module__ = "torch._utils"
FloatStorage.__module__ = "torch"
sys.modules["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
sys.modules["torch"].FloatStorage = FloatStorage


class Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def __reduce__(self):
        strides = [math.prod(self.shape[axis + 1:]) for axis in range(len(self.shape))]
        hooks = collections.OrderedDict()
        return _rebuild_tensor_v2, (self.storage, 0, tuple(self.shape), tuple(strides), False, hooks)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", FloatStorage, value.key, "cpu", value.count
        return None


def save(tensors, path):
    """tensors: {name: (shape, bytes of fp32)}"""
    weights = collections.OrderedDict()
    for number, (name, (shape, _)) in enumerate(tensors.items()):
        weights[name] = Tensor(Storage(str(number), math.prod(shape)), shape)
    pickled = io.BytesIO()
    Pickler(pickled, 2).dump({"state_dict": weights, "global_step": 7})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        for number, (_, content) in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", content)
        archive.writestr("archive/version", "3\n")


def read(path):
    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    assert all(entry["dtype"] == "F32" for entry in header.values())
    return {
        name: (entry["shape"], content[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]])
        for name, entry in header.items()}


def latent_diffusion():
    names = json.loads((pathlib.Path(__file__).parent.parent / "Fixtures/compvis/names.json").read_text())
    random.seed(1)
    tensors = {}
    for prefix, model in (("model.diffusion_model.", "unet"), ("first_stage_model.", "vq")):
        for name, shape, _ in names[model]:
            values = [random.gauss(0, 0.05) for _ in range(math.prod(shape))]
            tensors[prefix + name] = shape, struct.pack(f"<{len(values)}f", *values)
    return tensors


source, target = sys.argv[1:]
save(latent_diffusion() if source == "-" else read(source), target)
