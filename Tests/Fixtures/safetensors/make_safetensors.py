#!/usr/bin/env python3
"""Writes types.safetensors with the official library: one tensor of each type that the tests read.

Needs torch and safetensors. Run it in this folder; the output is committed.
"""

import torch
from safetensors.torch import save_file

VALUES = [0.0, -0.0, 1.0, -2.5, 1 / 3, 65504.0, 6e-8, 3.0e38, float("inf"), float("-inf")]


def main():
    values = torch.tensor(VALUES, dtype=torch.float64)
    tensors = {
        "f64": values,
        "f32": values.float(),
        "f16": values[:7].half(),
        "bf16": values.bfloat16(),
        "i64": torch.tensor([-(2**40), 0, 2**40]),
        "i32": torch.tensor([-5, 7], dtype=torch.int32),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "matrix": torch.arange(24, dtype=torch.float32).reshape(4, 3, 2),
        "scalar": torch.tensor(42.0),
        "empty": torch.zeros(0, 3),
    }
    save_file(tensors, "types.safetensors", metadata={"format": "pt", "note": "ünï"})


if __name__ == "__main__":
    main()
