"""pytorch-fid's Inception network with random weights, so that nothing is downloaded."""

import contextlib
import unittest.mock

import pytorch_fid.inception
import torch
import torchvision.models.inception
from safetensors.torch import save_file


class NarrowConv(torchvision.models.inception.BasicConv2d):
    """A convolution with a sixteenth of the channels; images keep their three channels."""

    def __init__(self, in_channels, out_channels, **kwargs):
        super().__init__(in_channels if in_channels == 3 else in_channels // 16, out_channels // 16, **kwargs)


def random_network(seed, is_narrow=False):
    """(the state dict that a weights file holds, pytorch-fid's InceptionV3 with those weights)."""
    with contextlib.ExitStack() as patches:
        # The constructor loads the published weights; replace them with its own.
        patches.enter_context(unittest.mock.patch("pytorch_fid.inception.load_state_dict_from_url"))
        patches.enter_context(unittest.mock.patch("torchvision.models.Inception3.load_state_dict"))
        if is_narrow:
            patches.enter_context(unittest.mock.patch("torchvision.models.inception.BasicConv2d", NarrowConv))
        network = pytorch_fid.inception.fid_inception_v3()
    randomize(network, seed)
    with unittest.mock.patch("pytorch_fid.inception.fid_inception_v3", lambda: network):
        whole = pytorch_fid.inception.InceptionV3([3]).eval()
    return network.state_dict(), whole


def randomize(network, seed):
    """He's initialization, and batch normalisation statistics that affect every layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in network.state_dict().items():
        if not values.is_floating_point():
            continue
        noise = torch.randn(values.shape, generator=generator)
        if values.dim() == 4:
            values.copy_(noise * (2 / values[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            values.copy_(1 + 0.5 * noise.clamp(-1, 1))
        elif name.endswith("bn.weight"):
            values.copy_(1 + 0.1 * noise)
        else:
            values.copy_(0.1 * noise)


def save(state, path):
    save_file({name: values.contiguous() for name, values in state.items()}, path)
