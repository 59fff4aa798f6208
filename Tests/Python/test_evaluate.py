"""Compares the features and metrics of `disttrain evaluate` with pytorch-fid, torch-fidelity and prdc."""

import contextlib
import io
import json

import numpy
import pytest
import torch
from PIL import Image
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance, get_activations
from safetensors.torch import load_file
from torch_fidelity.metric_kid import kernel_mmd

import inception
from figures import check, largest, note
from program import disttrain

COUNT = 40


def draw(folder, seed, blur):
    """Pictures of smooth noise, 48×48, PNG."""
    folder.mkdir()
    random = numpy.random.default_rng(seed)
    for index in range(COUNT):
        noise = random.integers(0, 256, size=(blur, blur, 3), dtype=numpy.uint8)
        Image.fromarray(noise).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{index:03}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, request):
    """(the result, the program's features and pytorch-fid's, of samples and of the reference)"""
    scratch, seed = tmp_path_factory.mktemp("evaluate"), request.config.option.seed
    state, network = inception.random_network(seed)
    inception.save(state, scratch / "inception.safetensors")
    files = draw(scratch / "samples", seed, 6), draw(scratch / "reference", seed + 1, 7)
    disttrain(
        "evaluate", "--samples", scratch / "samples", "--reference", scratch / "reference", "--inception",
        scratch / "inception.safetensors", "--output", scratch / "out", "--keep-features")
    result = json.loads((scratch / "out/evaluation-inception.json").read_text())
    features = [
        load_file(next((scratch / "out").glob(f"{name}-inception-*.safetensors")))["features"]
        for name in ("samples", "reference")]
    expected = [torch.from_numpy(get_activations(f, network, 20, 2048, "cpu", 0)) for f in files]
    return result, features, expected, scratch


def test_features_are_those_of_pytorch_fid(evaluated):
    _, features, expected, _ = evaluated
    for name, found, wanted in zip(("samples", "reference"), features, expected):
        check(f"Inception features of {name}", found, wanted, 1e-5)
        scale = wanted.abs().max().item()
        check(f"Inception features of {name}, over the largest", found / scale, wanted / scale, 1e-4, largest)


def test_measures_are_those_of_the_packages(evaluated):
    result, features, _, _ = evaluated
    samples, reference = (f.double().numpy() for f in features)
    metrics = result["metrics"]
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real_features=reference, fake_features=samples, nearest_k=5)
    for name, value in expected.items():
        note(f"evaluate: {name}", "largest", abs(metrics[name] - value), 1e-5)
        assert abs(metrics[name] - value) <= 1e-5, f"{name}: {metrics[name]}, expected {value}"
    # By singular values: with fewer images than feature dimensions, pytorch-fid's matrix root does not exist.
    (mu, nu) = samples.mean(0), reference.mean(0)
    root = numpy.linalg.svd((samples - mu) @ (reference - nu).T, compute_uv=False).sum() / (COUNT - 1)
    traces = ((samples - mu) ** 2).sum() / (COUNT - 1) + ((reference - nu) ** 2).sum() / (COUNT - 1)
    fid = ((mu - nu) ** 2).sum() + traces - 2 * root
    note("evaluate: FID of few, by definition", "relative", abs(metrics["fid"] / fid - 1), 1e-5)
    assert abs(metrics["fid"] / fid - 1) <= 1e-5, f"fid: {metrics['fid']}, expected {fid}"
    # Subsets are drawn differently; the mean over all pairs must be within the interval.
    kid = kernel_mmd(samples, reference, kid_kernel="poly")
    assert metrics["kid_low"] <= kid <= metrics["kid_high"], f"kid {kid}, found {metrics}"


def test_fid_of_many_is_that_of_pytorch_fid(tmp_path, evaluated):
    """Compared with statistics of full rank, for which both are well conditioned."""
    _, features, expected, scratch = evaluated
    random = numpy.random.default_rng(5)
    basis = random.normal(size=(2048, 2048)) / 45
    sigma = basis @ basis.T + 0.1 * numpy.eye(2048)
    mu = expected[1].double().numpy().mean(0)
    numpy.savez_compressed(tmp_path / "other.npz", mu=mu, sigma=sigma)
    disttrain(
        "evaluate", "--samples", scratch / "samples", "--reference", tmp_path / "other.npz", "--inception",
        scratch / "inception.safetensors", "--output", tmp_path / "out")
    found = json.loads((tmp_path / "out/evaluation-inception.json").read_text())["metrics"]["fid"]
    own = features[0].double().numpy()
    wanted = calculate_frechet_distance(own.mean(0), numpy.cov(own, rowvar=False), mu, sigma)
    note("evaluate: FID against .npz", "relative", abs(found / wanted - 1), 1e-6)
    assert abs(found / wanted - 1) <= 1e-6, f"{found}, expected {wanted}"


def test_mirrored_copies_are_found(tmp_path, request):
    """Samples that a network memorised from mirrored training images."""
    (tmp_path / "mirrored").mkdir()
    for file in draw(tmp_path / "reference", request.config.option.seed, 6):
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored" / file.name)
    disttrain(
        "evaluate", "--samples", tmp_path / "mirrored", "--reference", tmp_path / "reference", "--features", "pixel",
        "--output", tmp_path / "out")
    metrics = json.loads((tmp_path / "out/evaluation-pixel.json").read_text())["metrics"]
    assert metrics["memorised"] == COUNT and metrics["nearest_training_distance"] == 0, metrics
