"""diffusers' AutoencoderKL that encodes images and decodes latents: what `disttrain bench vae` is held against.

Prints two lines, encoding first; the second's peak memory is that of both.
"""
import torch
from diffusers import AutoencoderKL

import peer

parser = peer.arguments(__doc__, "timed passes each way")
parser.add_argument("--mode", choices=["weights", "autocast"], default="weights", help="how bf16 is computed")
parser.add_argument("--size", type=int, default=256, help="side of the images")
parser.add_argument("--slicing", action="store_true", help="one image at a time (enable_slicing)")
arguments = parser.parse_args()
ranks = peer.Ranks(arguments.threads)
model, dtype, context = peer.forward_mode(peer.load(AutoencoderKL, arguments.config), arguments, arguments.mode)
if arguments.slicing:
    model.enable_slicing()
config, factor = model.config, 2 ** (len(model.config.block_out_channels) - 1)


def noise(channels, size):
    values = torch.randn(arguments.batch, channels, size, size, dtype=dtype)
    return values.to(memory_format=torch.channels_last)


images = noise(config.in_channels, arguments.size)
latents = noise(config.latent_channels, arguments.size // factor)
settings = f"channels_last, {arguments.mode}" + (", slicing" if arguments.slicing else "")
with torch.inference_mode(), context:
    seconds = ranks.time(arguments.count, lambda: model.encode(images).latent_dist.mean)
    ranks.report("encode", arguments, seconds, settings)
    seconds = ranks.time(arguments.count, lambda: model.decode(latents).sample)
    ranks.report("decode", arguments, seconds, settings)
ranks.close()
