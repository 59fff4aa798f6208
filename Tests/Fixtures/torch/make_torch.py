#!/usr/bin/env python3
"""Writes files of torch.save, and the same tensors as safetensors. Needs torch 2.15 and safetensors."""
import collections
import pathlib

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent
torch.manual_seed(0)

matrix = torch.arange(12.0).reshape(3, 4) - 5.5
tensors = {
    "f32": matrix,
    "f64": matrix.double() / 3,
    "f16": matrix.half(),
    "bf16": matrix.bfloat16() / 3,
    "parameter": torch.nn.Parameter(matrix[:1].clone()),
    "transposed": matrix.t(),
    "rows": matrix[1:, ::2],
    "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    "scalar": torch.tensor(42.0),
    "empty": torch.zeros(0, 3),
    "i64": torch.tensor([-(1 << 40), 0, 1 << 40]),
    "u8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "u16": torch.tensor([1, 65535], dtype=torch.uint16),
    "f8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
}
save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, folder / "types.safetensors")
torch.save(collections.OrderedDict(tensors), folder / "types.pt")

weights = torch.nn.Linear(2, 1).state_dict()
torch.save(
    {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.2",
        "callbacks": {"monitor": "val/loss", "best": torch.tensor(0.5)},
        "state_dict": collections.OrderedDict((f"module.{name}", value) for name, value in weights.items()),
        "hyper_parameters": {"size": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cpu")},
    },
    folder / "lightning.ckpt",
)
torch.save(weights, folder / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 1), folder / "module.pt")
torch.save({"wide": torch.zeros(1).expand(1 << 30)}, folder / "expanded.pt")
torch.save([matrix], folder / "list.pt")
