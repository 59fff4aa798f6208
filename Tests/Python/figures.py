"""Comparisons, and the table of their results at the end of a run."""

import torch

ROWS = []  # (what, measure, figure, limit)


def relative(found, expected):
    """‖found − expected‖ / ‖expected‖, in double precision."""
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def largest(found, expected):
    """max |found − expected|."""
    return (found.double() - expected.double()).abs().max().item()


def check(what, found, expected, limit, measure=relative):
    """Fails unless both tensors have the same shape and their `measure` is at most `limit`."""
    assert found.shape == expected.shape, f"{what}: shape {list(found.shape)}, expected {list(expected.shape)}"
    figure = measure(found, expected)
    note(what, measure.__name__, figure, limit)
    assert figure <= limit, (
        f"{what}: {measure.__name__} difference {figure:.3g}, expected at most {limit:.3g}\n"
        f"  found    {summary(found)}\n  expected {summary(expected)}")


def note(what, measure, figure, limit):
    """Adds a figure to the table; `limit` is None if it is not checked."""
    ROWS.append((what, measure, figure, limit))


def summary(tensor):
    values = tensor.detach().double().flatten()
    first = ", ".join(f"{v:.7g}" for v in values[:4])
    return f"norm {values.norm():.7g}, mean {values.mean():.7g}, from [{first}, …]"


def table():
    """Lines of text; empty if nothing was compared."""
    if not ROWS:
        return
    width = max(len(row[0]) for row in ROWS)
    yield f"{'comparison':{width}}  {'measure':9} {'figure':>9} {'limit':>9}"
    for what, measure, figure, limit in ROWS:
        bound = "-" if limit is None else f"{limit:9.1e}"
        failed = "" if limit is None or figure <= limit else "  FAILED"
        yield f"{what:{width}}  {measure:9} {figure:9.1e} {bound:>9}{failed}"
