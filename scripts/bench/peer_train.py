"""PyTorch DistributedDataParallel (gloo) training a diffusers UNet2DModel: what `disttrain bench step` is held against.

A step is forward, MSE loss, backward, gradient all-reduce, clipping to norm 1 and fused AdamW; bf16 is autocast.
"""
import torch
from diffusers import UNet2DModel

import peer

arguments = peer.arguments(__doc__, "timed steps").parse_args()
ranks = peer.Ranks(arguments.threads)
model = peer.load(UNet2DModel, arguments.config)
wrapped = model
if ranks.count > 1:
    wrapped = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, fused=True)

channels, size = model.config.in_channels, model.config.sample_size
noisy = torch.randn(arguments.batch, channels, size, size).to(memory_format=torch.channels_last)
noise = torch.randn_like(noisy)
timesteps = torch.randint(0, 1000, (arguments.batch,))


def step():
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.precision == "bf16"):
        predicted = wrapped(noisy, timesteps).sample
    torch.nn.functional.mse_loss(predicted.float(), noise).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


settings = "channels_last, fused AdamW" + (", autocast" if arguments.precision == "bf16" else "")
ranks.report("step", arguments, ranks.time(arguments.count, step), settings)
ranks.close()
