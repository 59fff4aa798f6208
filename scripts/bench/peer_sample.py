"""diffusers' UNet2DModel as its pipelines evaluate it: what `disttrain bench sample` is held against."""
import torch
from diffusers import UNet2DModel

import peer

parser = peer.arguments(__doc__, "timed evaluations")
parser.add_argument("--mode", choices=["weights", "autocast"], default="weights", help="how bf16 is computed")
arguments = parser.parse_args()
ranks = peer.Ranks(arguments.threads)
model, dtype, context = peer.forward_mode(peer.load(UNet2DModel, arguments.config), arguments, arguments.mode)
channels, size = model.config.in_channels, model.config.sample_size
sample = torch.randn(arguments.batch, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
timesteps = torch.full((arguments.batch,), 500)

with torch.inference_mode(), context:
    seconds = ranks.time(arguments.count, lambda: model(sample, timesteps).sample)
ranks.report("evaluation", arguments, seconds, f"channels_last, {arguments.mode}")
ranks.close()
