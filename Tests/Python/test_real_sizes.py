"""Published models at their real size, with the random weights of diffusers' initialization."""

import copy

import pytest
import torch

from figures import check, note, relative
from program import decode, encode, predict
from published import SD_VAE_PARAMETERS, UNETS, sd_vae_ft_mse
from reference import give_old_names, old_names_of, seeded

LIMITS = {"fp32": 1e-5, "bf16": 2e-2}


@torch.no_grad()
def test_sd_vae_ft_mse(tmp_path, seed):
    torch.manual_seed(seed)
    model = sd_vae_ft_mse().eval()
    assert model.num_parameters() == SD_VAE_PARAMETERS
    folder = tmp_path / "vae"
    model.save_pretrained(folder)
    give_old_names(folder)
    assert old_names_of(folder) == 4
    image = seeded(seed, 1, 3, 256, 256).clamp(-1, 1)
    posterior = model.encode(image).latent_dist
    reconstruction = model.decode(posterior.mean).sample
    # A decoder with random weights amplifies the rounding of bf16 beyond the tolerance, in PyTorch as well; then the
    # error must not exceed PyTorch's.
    own = copy.deepcopy(model).bfloat16().decode(posterior.mean.bfloat16()).sample
    note("sd-vae-ft-mse, bf16: PyTorch's own reconstruction", "relative", relative(own, reconstruction), None)
    for precision, limit in LIMITS.items():
        encoded = encode(folder, image, tmp_path, precision)
        check(f"sd-vae-ft-mse, {precision}: latent mean", encoded["latent_mean"], posterior.mean, limit)
        check(f"sd-vae-ft-mse, {precision}: log-variance", encoded["latent_logvar"], posterior.logvar, limit)
        decoded = decode(folder, posterior.mean, tmp_path, precision=precision)
        if precision == "bf16":
            limit = max(limit, relative(own, reconstruction))
        check(f"sd-vae-ft-mse, {precision}: reconstruction", decoded, reconstruction, limit)


@pytest.mark.parametrize("name", UNETS)
@torch.no_grad()
def test_unet(name, tmp_path, seed):
    build, parameters = UNETS[name]
    torch.manual_seed(seed)
    model = build().eval()
    assert model.num_parameters() == parameters
    model.save_pretrained(tmp_path / "unet")
    size = model.config.sample_size
    sample = seeded(seed, 2, 3, size, size)
    for timestep in (20, 500, 980):
        expected = model(sample, timestep).sample
        for precision, limit in LIMITS.items():
            found = predict(tmp_path / "unet", sample, timestep, tmp_path, precision)
            check(f"{name}, {precision}: output at timestep {timestep}", found, expected, limit)
