"""Golden values of power-function averages, from the formulas of Karras et al. 2024 (EDM2), section 3 and appendix C:

    python make_ema.py > ema.json

Needs numpy and scipy. Inner products are integrated numerically; fits are least squares on profiles that are sampled
on a fine grid, so neither uses the closed forms of the program.
"""
import json

import numpy as np
from scipy.integrate import quad


def gamma(sigma):
    return float(np.roots([1, 7, 16 - sigma**-2, 12 - sigma**-2]).real.max())


def profile(g, t):
    return lambda tau: (g + 1) * tau**g / t ** (g + 1) if tau <= t else 0.0


def product(a, b):
    p, q = profile(*a), profile(*b)
    return quad(lambda tau: p(tau) * q(tau), 0, min(a[1], b[1]), epsabs=0, epsrel=1e-12, limit=500)[0]


def fit(wanted, stored):
    """Least squares over midpoints of a grid; the factors sum to 1, so the last is 1 minus the others."""
    cells = 400_000
    tau = (np.arange(cells) + 0.5) * wanted[1] / cells
    sampled = lambda g, t: np.where(tau <= t, (g + 1) * tau**g / float(t) ** (g + 1), 0)
    columns = np.stack([sampled(*p) for p in stored], 1)
    target = sampled(*wanted)
    last = columns[:, -1]
    others = np.linalg.lstsq(columns[:, :-1] - last[:, None], target - last, rcond=None)[0]
    factors = np.append(others, 1 - others.sum())
    residual = np.linalg.norm(columns @ factors - target) / np.linalg.norm(target)
    return factors.tolist(), float(residual)


widths = [0.01, 0.05, 0.1, 0.15, 0.2, 0.28]
pairs = [((0.05, 100), (0.05, 100)), ((0.05, 100), (0.1, 100)), ((0.1, 40), (0.05, 100)), ((0.05, 40), (0.2, 70))]
fits = []
for sigma, steps in [(0.08, [100]), (0.08, [25, 50, 75, 100]), (0.15, [25, 50, 75, 100]), (0.03, [50, 100])]:
    stored = [(s, t) for t in steps for s in (0.05, 0.1)]
    factors, residual = fit((gamma(sigma), steps[-1]), [(gamma(s), t) for s, t in stored])
    fits.append({"sigma": sigma, "steps": steps, "factors": factors, "residual": residual})

# The average after each update, for weights that change in every update: θ̂(t) = Σ θ(s) ∫ p over step s.
weights = np.random.default_rng(0).normal(size=12).round(3)
averages = {}
for sigma in (0.05, 0.2):
    g = gamma(sigma)
    edges = np.arange(13.0) ** (g + 1)
    shares = np.diff(edges)
    averages[str(sigma)] = [float(shares[:t] @ weights[:t] / edges[t]) for t in range(1, 13)]

print(json.dumps({
    "gammas": [{"sigma": s, "gamma": gamma(s)} for s in widths],
    "products": [
        {"a": list(a), "b": list(b), "value": product((gamma(a[0]), a[1]), (gamma(b[0]), b[1]))} for a, b in pairs],
    "fits": fits,
    "weights": weights.tolist(),
    "averages": averages,
}, indent=1))
