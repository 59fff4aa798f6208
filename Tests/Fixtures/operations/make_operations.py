"""Generates operations.safetensors, the golden values of every operation, with PyTorch in float64.

    python Tests/Fixtures/operations/make_operations.py        (torch, diffusers, safetensors)

A case NAME contains, with images in NHWC and parameters in PyTorch's layout:
  NAME/in.X          an input with a gradient              NAME/grad.X    its gradient
  NAME/const.X       an input without one (fp32)
  NAME/param.X       a parameter                           NAME/grad.X    its gradient
  NAME/out           the result                            NAME/grad_out  the gradient that flows into it
  NAME/sums          a loss's sum over each sample         NAME/sum_weight  its weight, [B]
The gradients are those of sum(out*grad_out) + sum(sums*sum_weight). All inputs are rounded to bf16, so
that both types start from the same numbers.
"""

import pathlib

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file

tensors = {}
torch.manual_seed(2024)


def rounded(x):
    return x.bfloat16().double()


def normal(*shape):
    return rounded(torch.randn(*shape))


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def case(name, f, inputs=None, params=None, consts=None):
    """f(inputs, params, consts) returns out, or (out, sums, sum_weight) with out or sums None."""
    inputs, params, consts = inputs or {}, params or {}, consts or {}
    leaves = {k: v.clone().requires_grad_() for k, v in {**inputs, **params}.items()}
    result = f(*({k: leaves[k] for k in group} for group in (inputs, params)), consts)
    out, sums, weight = result if isinstance(result, tuple) else (result, None, None)
    values = {f"in.{k}": v for k, v in inputs.items()}
    values |= {f"param.{k}": v for k, v in params.items()}
    values |= {f"const.{k}": v for k, v in consts.items()}
    total = 0
    if out is not None:
        values["out"] = out.detach()
        if leaves:
            values["grad_out"] = normal(*out.shape)
            total = total + (out * values["grad_out"]).sum()
    if sums is not None:
        values |= {"sums": sums.detach(), "sum_weight": weight}
        total = total + (sums * weight).sum()
    if leaves:
        total.backward()
        values |= {f"grad.{k}": v.grad for k, v in leaves.items()}
    for key, value in values.items():
        tensors[f"{name}/{key}"] = value.float().contiguous()


# Convolutions and linear layers.

def convolution(name, B, H, W, C, O, kernel=3, stride=1, pad=(1, 1, 1, 1), bias=True, addend=False):
    """pad as in F.pad: left, right, top, bottom."""
    def f(x, p, _):
        y = F.conv2d(F.pad(nchw(x["x"]), pad), p["weight"], p.get("bias"), stride)
        return nhwc(y) + (x["addend"] if addend else 0)
    inputs = {"x": normal(B, H, W, C)}
    if addend:
        outH, outW = ((n + a + b - kernel) // stride + 1 for n, a, b in ((H, *pad[2:]), (W, *pad[:2])))
        inputs["addend"] = normal(B, outH, outW, O)
    params = {"weight": rounded(0.3 * torch.randn(O, C, kernel, kernel))}
    if bias:
        params["bias"] = normal(O)
    case(name, f, inputs, params)


none = (0, 0, 0, 0)
convolution("convolution_3x3", 2, 5, 7, 3, 4)
convolution("convolution_3x3_wide", 1, 6, 5, 16, 32)
convolution("convolution_3x3_odd_channels", 2, 4, 3, 17, 5)
convolution("convolution_3x3_no_bias", 3, 3, 4, 5, 6, bias=False)
convolution("convolution_3x3_addend", 2, 5, 4, 4, 6, addend=True)
convolution("convolution_3x3_one_pixel", 2, 1, 1, 8, 8)
convolution("convolution_1x1", 2, 3, 5, 7, 3, kernel=1, pad=none)
convolution("convolution_1x1_addend", 2, 3, 3, 8, 8, kernel=1, pad=none, bias=False, addend=True)
convolution("convolution_stride2_symmetric", 2, 6, 8, 3, 4, stride=2)
convolution("convolution_stride2_symmetric_odd", 2, 7, 5, 4, 3, stride=2)
convolution("convolution_stride2_bottom_right", 2, 6, 8, 4, 5, stride=2, pad=(0, 1, 0, 1))
convolution("convolution_stride2_bottom_right_odd", 1, 5, 7, 3, 4, stride=2, pad=(0, 1, 0, 1), bias=False)


def linear(name, shape, O, bias=True, addend=False):
    def f(x, p, _):
        return F.linear(x["x"], p["weight"], p.get("bias")) + (x["addend"] if addend else 0)
    inputs = {"x": normal(*shape)}
    if addend:
        inputs["addend"] = normal(*shape[:-1], O)
    params = {"weight": rounded(0.3 * torch.randn(O, shape[-1]))}
    if bias:
        params["bias"] = normal(O)
    case(name, f, inputs, params)


linear("linear", (3, 5), 7)
linear("linear_tokens", (2, 9, 16), 24)
linear("linear_no_bias", (2, 3, 4, 6), 5, bias=False)
linear("linear_addend", (2, 7, 8), 8, addend=True)

case("matmul", lambda x, *_: x["a"] @ x["b"], {"a": normal(5, 7), "b": normal(7, 3)})
case("matmul_transposed", lambda x, *_: x["a"] @ x["b"].T, {"a": normal(4, 6), "b": normal(9, 6)})


# Norms and activations.

def group_norm(name, shape, groups, silu, eps=1e-5):
    def f(x, p, _):
        y = F.group_norm(x["x"].movedim(-1, 1), groups, p["weight"], p["bias"], eps).movedim(1, -1)
        return F.silu(y) if silu else y
    C = shape[-1]
    # A nonzero mean reveals errors by cancellation.
    x = rounded(1.5 * torch.randn(*shape) + 2)
    case(name, f, {"x": x}, {"weight": rounded(1 + 0.3 * torch.randn(C)), "bias": normal(C)})


group_norm("group_norm", (2, 3, 5, 6), 3, False)
group_norm("group_norm_silu", (2, 3, 5, 6), 3, True)
group_norm("group_norm_one_group", (2, 2, 3, 5), 1, False, eps=1e-6)
group_norm("group_norm_silu_channel_each", (3, 3, 3, 7), 7, True)
group_norm("group_norm_silu_wide", (2, 3, 4, 48), 16, True, eps=1e-6)
group_norm("group_norm_odd_width", (2, 3, 3, 33), 11, False)
group_norm("group_norm_tokens", (2, 7, 10), 5, False, eps=1e-6)
case("silu", lambda x, *_: F.silu(x["x"]), {"x": rounded(3 * torch.randn(2, 3, 5, 7))})


# Attention.

def attention(name, B, N, heads, D):
    def f(x, *_):
        q, k, v = (x[n].reshape(B, N, heads, D).transpose(1, 2) for n in "qkv")
        weights = torch.softmax(q @ k.transpose(-1, -2) / D**0.5, dim=-1)
        return (weights @ v).transpose(1, 2).reshape(B, N, heads * D)
    case(name, f, {n: normal(B, N, heads * D) for n in "qkv"})


attention("attention", 2, 9, 1, 8)
attention("attention_two_heads", 2, 15, 2, 4)
attention("attention_odd", 3, 7, 3, 5)
attention("attention_one_token", 2, 1, 2, 8)
attention("attention_long", 1, 67, 2, 16)


# Resampling and combining.

case("upsample", lambda x, *_: nhwc(F.interpolate(nchw(x["x"]), scale_factor=2, mode="nearest")),
     {"x": normal(2, 3, 5, 7)})
case("average_pool", lambda x, *_: nhwc(F.avg_pool2d(nchw(x["x"]), 2)), {"x": normal(2, 4, 6, 5)})
case("concatenate", lambda x, *_: torch.cat([x["a"], x["b"]], -1),
     {"a": normal(2, 3, 2, 5), "b": normal(2, 3, 2, 3)})
case("slice", lambda x, *_: x["x"][..., 2:5], {"x": normal(2, 3, 3, 7)})
case("add", lambda x, *_: x["a"] + x["b"], {"a": normal(2, 3, 7), "b": normal(2, 3, 7)})
case("add_scaled", lambda x, *_: (x["a"] + x["b"]) * 0.625, {"a": normal(2, 3, 7), "b": normal(2, 3, 7)})
case("scale", lambda x, *_: x["x"] * -1.75, {"x": normal(3, 11)})
case("affine", lambda x, *_: x["x"] * 1.5 - 0.25, {"x": normal(3, 11)})
case("reshape", lambda x, *_: x["x"].reshape(2, 15, 4) * 0.5, {"x": normal(2, 3, 5, 4)})
case("cast", lambda x, *_: x["x"], {"x": normal(3, 7)})
case("add_channels", lambda x, *_: x["x"] + x["t"][:, None, None, :],
     {"x": normal(2, 3, 5, 7), "t": normal(2, 7)})


def scale_shift(x, *_):
    s, t = x["st"].chunk(2, dim=-1)
    return x["x"] * (1 + s[:, None, None, :]) + t[:, None, None, :]


case("scale_shift", scale_shift, {"x": normal(2, 3, 5, 7), "st": normal(2, 14)})

for name, dim, flip, shift in [
    ("timestep_embedding", 8, False, 1), ("timestep_embedding_flipped", 12, True, 0),
    ("timestep_embedding_odd", 7, True, 0.0),
]:
    t = torch.tensor([0.0, 1, 17, 250, 999])
    embedding = get_timestep_embedding(t, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
    case(name, lambda *_: embedding, consts={"t": t})


generator_state = torch.get_rng_state()
labels = torch.tensor([2.0, 0, 2, 3])  # a repeated one, and an entry without a sample
case("embedding", lambda _, p, c: p["table"][c["labels"].long()], params={"table": normal(5, 6)}, consts={"labels": labels})
torch.set_rng_state(generator_state)  # the following cases keep their values


# Losses.

def apart(x, target, difference):
    """Draws until no difference is so close to zero that finite differences would cross the kink."""
    while difference(x - target).abs().min() < 0.02:
        target = normal(*target.shape)
    return target


def pixel_edges(e):
    return torch.cat([(e[:, 1:] - e[:, :-1]).flatten(1), (e[:, :, 1:] - e[:, :, :-1]).flatten(1)], dim=1)


weight = rounded(torch.tensor([0.25, 1.5]))
x = normal(2, 3, 4, 5)
target = apart(x, normal(2, 3, 4, 5), lambda e: e)
consts = {"target": target, "weight": weight}
case("error_squared", lambda i, p, c: (None, (i["x"] - target).square().flatten(1).sum(1), weight), {"x": x},
     consts=consts)
case("error_absolute", lambda i, p, c: (None, (i["x"] - target).abs().flatten(1).sum(1), weight), {"x": x},
     consts=consts)
x = normal(2, 3, 4, 2)
target_edge = apart(x, normal(2, 3, 4, 2), pixel_edges)
case("edge_error", lambda i, p, c: (None, pixel_edges(i["x"] - target_edge).abs().sum(1), weight), {"x": x},
     consts={"target": target_edge, "weight": weight})


def gaussian(i, p, c):
    mean, logvar = i["moments"].chunk(2, dim=-1)
    logvar = logvar.clamp(-30, 20)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)
    return mean + torch.exp(0.5 * logvar) * c["noise"], kl, torch.tensor([0.375, 0.375]).double()


moments = normal(2, 3, 5, 6)
moments[0, 0, 0, 4] = -35  # below the clamp: no gradient
case("gaussian_sample", gaussian, {"moments": moments}, consts={"noise": normal(2, 3, 5, 3)})


# A network in which residuals share gradients and activations have different lifetimes.

def residual_network(x, p, _):
    h = F.conv2d(nchw(x["x"]), p["in.weight"], p["in.bias"], padding=1)
    skip = h
    y = F.silu(F.group_norm(h, 2, p["norm1.weight"], p["norm1.bias"]))
    y = F.conv2d(y, p["conv1.weight"], p["conv1.bias"], padding=1)
    y = y + x["t"][:, :, None, None]
    y = F.silu(F.group_norm(y, 4, p["norm2.weight"], p["norm2.bias"]))
    h = F.conv2d(y, p["conv2.weight"], p["conv2.bias"], padding=1) + h  # residual
    B, C, H, W = h.shape
    tokens = F.group_norm(h, 2, p["norm3.weight"], p["norm3.bias"]).flatten(2).transpose(1, 2)
    q = F.linear(tokens, p["q.weight"])
    a = torch.softmax(q @ tokens.transpose(1, 2) / C**0.5, dim=-1) @ tokens  # keys and values: the tokens
    h = (a.transpose(1, 2).reshape(B, C, H, W) + h) * 0.7  # residual
    down = F.conv2d(h, p["down.weight"], p["down.bias"], stride=2, padding=1)
    up = F.interpolate(F.silu(down), scale_factor=2, mode="nearest")
    h = torch.cat([up, skip], dim=1)  # the skip connection's third use
    h = F.conv2d(h, p["out.weight"], p["out.bias"])
    return nhwc(h)


def weights(*shape):
    return rounded(torch.randn(*shape) * (2 / torch.tensor(shape[1:]).prod()) ** 0.5)


parameters = {}
for name, shape in [
    ("in", (8, 3, 3, 3)), ("conv1", (8, 8, 3, 3)), ("conv2", (8, 8, 3, 3)), ("down", (8, 8, 3, 3)),
    ("out", (3, 16, 1, 1)),
]:
    parameters |= {f"{name}.weight": weights(*shape), f"{name}.bias": normal(shape[0])}
parameters["q.weight"] = weights(8, 8)
for name in ["norm1", "norm2", "norm3"]:
    parameters |= {f"{name}.weight": rounded(1 + 0.2 * torch.randn(8)), f"{name}.bias": normal(8)}
case("residual_network", residual_network, {"x": normal(2, 6, 4, 3), "t": normal(2, 8)}, parameters)

path = pathlib.Path(__file__).parent / "operations.safetensors"
save_file(tensors, path)
print(f"{len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KB, in {path}")
