"""Generates the golden values of the evaluation metrics with pytorch-fid, torch-fidelity and prdc.

    python Tests/Fixtures/evaluation/make_evaluation.py     (pytorch-fid, torch-fidelity, prdc)

features.safetensors has samples [100, 24] and reference [130, 24]; stored.npz and deflated.npz the reference's
statistics as numpy writes them; measures.json the results of the packages.
"""

import contextlib
import io
import json
import pathlib

import numpy
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.numpy import save_file
from torch_fidelity.metric_kid import kernel_mmd

folder = pathlib.Path(__file__).parent
random = numpy.random.default_rng(2018)
mix = random.normal(size=(24, 24)) / 5
reference = (random.normal(size=(130, 24)) @ mix + 0.4).astype(numpy.float32)
samples = (random.normal(size=(100, 24)) @ (mix + 0.05 * random.normal(size=(24, 24))) + 0.5).astype(numpy.float32)
samples[7] = reference[11]  # memorised
samples[41] = samples[40]  # a duplicate


def statistics(features):
    features = features.astype(numpy.float64)
    return features.mean(axis=0), numpy.cov(features, rowvar=False)


def frechet(a, b):
    return float(calculate_frechet_distance(*statistics(a), *statistics(b)))


def frechet_of_few(a, b):
    """By the definition, for singular covariances: the trace of the root is the sum of singular values of A·Bᵀ."""
    a, b = a.astype(numpy.float64), b.astype(numpy.float64)
    (mu, sigma), (nu, tau) = statistics(a), statistics(b)
    root = numpy.linalg.svd((a - mu) @ (b - nu).T, compute_uv=False).sum() / ((len(a) - 1) * (len(b) - 1)) ** 0.5
    return float(((mu - nu) ** 2).sum() + numpy.trace(sigma) + numpy.trace(tau) - 2 * root)


def distances(a, b):
    return numpy.linalg.norm(a[:, None].astype(numpy.float64) - b[None], axis=2)


with contextlib.redirect_stdout(io.StringIO()):
    manifolds = compute_prdc(real_features=reference, fake_features=samples, nearest_k=5)
    # The program compares as many reference images as there are samples, spread evenly.
    even = compute_prdc(
        real_features=reference[numpy.arange(100) * 130 // 100], fake_features=samples, nearest_k=5)
own = distances(samples, samples)
to_reference = distances(samples, reference)
measures = {
    "frechet": frechet(samples, reference),
    "frechet_of_few": frechet_of_few(samples[:9], reference[:15]),
    # The package requires sets of equal size.
    "mmd": float(kernel_mmd(samples.astype(numpy.float64), reference[:100].astype(numpy.float64), kid_kernel="poly")),
    "prdc": {k: float(v) for k, v in even.items()},
    "prdc_of_all": {k: float(v) for k, v in manifolds.items()},
    "mean_pairwise_distance": float(own.sum() / (100 * 99)),
    "nearest": to_reference.argmin(axis=1).tolist(),
    "nearest_distances": to_reference.min(axis=1).tolist(),
}
save_file({"samples": samples, "reference": reference}, folder / "features.safetensors")
mu, sigma = statistics(reference)
numpy.savez(folder / "stored.npz", mu=mu, sigma=sigma)
numpy.savez_compressed(folder / "deflated.npz", mu=mu.astype(numpy.float32), sigma=numpy.asfortranarray(sigma))
(folder / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
print(json.dumps({k: v for k, v in measures.items() if not isinstance(v, list)}, indent=1))
