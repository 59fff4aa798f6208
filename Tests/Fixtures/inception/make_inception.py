"""Generates the golden values of FID's Inception network with pytorch-fid: random weights, all widths divided by 16.

    python Tests/Fixtures/inception/make_inception.py        (torch, torchvision, pytorch-fid)

network.safetensors is a state dict as users convert it; features.safetensors has images [N, 3, H, W] in [0, 1] of
two sizes, and the network's features of them, [N, 128].
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent
sys.path.insert(0, str(folder.parents[1] / "Python"))
import inception  # noqa: E402

state, network = inception.random_network(seed=20151205, is_narrow=True)
inception.save({k: v for k, v in state.items() if not k.startswith("fc.")}, folder / "network.safetensors")
tensors = {}
for name, shape in [("small", (2, 3, 32, 40)), ("large", (1, 3, 310, 330))]:
    noise = torch.rand(shape[0], 3, 9, 11, generator=torch.Generator().manual_seed(shape[2]))
    # Sharp edges and smooth gradients, rounded so that the file is small.
    image = torch.nn.functional.interpolate(noise, size=shape[2:], mode="bicubic").clamp(0, 1)
    tensors[f"{name}.images"] = (image * 255).round().to(torch.uint8)
    with torch.no_grad():
        tensors[f"{name}.features"] = network(tensors[f"{name}.images"].float() / 255)[0].flatten(1)
save_file(tensors, folder / "features.safetensors")
for name, values in tensors.items():
    print(name, tuple(values.shape), values.float().mean().item(), values.float().std().item())
