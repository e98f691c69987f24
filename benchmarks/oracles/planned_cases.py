"""Laws and a trained network with the curve that grids are made for, and the distance of samples from the data."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.laws.mixtures import LAWS
from benchmarks.oracles.flat_gaussian import FLAT, Spectrum
from benchmarks.samplers.devices import spread
from benchmarks.samplers.padded_tables import fresh, run
from jaxdiff import information, kernels, metrics, sample
from jaxdiff.curves import Curve
from jaxdiff.processes import forward

HORIZON, EARLY_STOP, DIGITS_EARLY_STOP = 5.0, 1e-3, 2e-3
DIGITS = "digits"
SAMPLED = {"quick": (5, 20), "full": (5, 10, 20, 50)}  # numbers of steps after which samples are drawn
PARTICLES, COORDINATES = 2**13, 2**19  # at most in a sample
REFERENCE, PROJECTIONS, FLOORS = 4, 128, 4  # size of the exact sample over a sample's; exact samples for a floor
TRAINING = {"quick": 400, "full": 4000}


class Case(NamedTuple):
    """A law or a model.

    The curve its grids are made for, the curve they are judged by, and the distance of samples from the data.
    """

    name: str
    planned: Curve
    judged: Curve
    measured: Callable  # (sampler, grid) -> columns
    early_stop: float = EARLY_STOP


def flat(size):
    """The flat Gaussian, with the exact KL of the end points."""
    spectrum = Spectrum.of_flat()
    curve = LAWS[FLAT]().mmse
    return Case(FLAT, curve, curve, lambda sampler, grid: {"marginal_kl": spectrum.kl(spectrum.kernel(sampler), grid)})


def mixture(name, size):
    """A mixture, with sliced W2 between samples and exact ones."""
    law = LAWS[name]()
    n = min(PARTICLES, COORDINATES // law.dim)
    key_exact, key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)
    drawn = lambda key, n: forward(law.sample(key, n), EARLY_STOP, jax.random.normal(key, (n, law.dim)))
    exact, *others = map(drawn, jax.random.split(key_exact, 1 + FLOORS), (REFERENCE * n, *(n,) * FLOORS))
    distance = lambda x: metrics.sliced_w2(x, exact, key_sliced, n_projections=PROJECTIONS).value
    floor = max(map(distance, others))
    start = spread(jax.random.normal(key_start, (n, law.dim)))

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        matched = (law.mmse,) if sampler == "moment_matched" else ()
        x = run(getattr(kernels, sampler)(law.score, *matched), grid, start, key=key_run, draw=fresh)
        return {"sliced_w2": distance(x), "floor": floor}

    return Case(name, law.mmse, law.mmse, measured)


def trained_on_digits(steps):
    """(data set, denoiser, loss curve on held-out rows, loss curve on test rows) of a network trained on the digits."""
    from jaxdiff import data, runs, train
    from jaxdiff.scores import denoiser_of

    dataset = data.load("digits")
    network = runs.build(dataset, {"width": 192, "depth": 3, "dropout": 0.1, "seed": 0})
    options = {"horizon": HORIZON, "early_stop": DIGITS_EARLY_STOP}
    key = jax.random.split(jax.random.key(0), 4)[0]
    fitted = train.fit(network, dataset.train, key, steps=steps, held_out=dataset.held_out, **options)
    denoiser = denoiser_of(fitted.network)
    curves = (information.loss_curve(denoiser, rows, key, **options) for rows in (dataset.held_out, dataset.test))
    return dataset, denoiser, *curves


def digits(size):
    """A network trained on the digits.

    Sliced W2 of samples to the test rows, as many samples as there are train rows.
    """
    from jaxdiff.app.comparison_subject import Subject

    options = {"horizon": HORIZON, "early_stop": DIGITS_EARLY_STOP}
    dataset, denoiser, planned, judged = trained_on_digits(TRAINING[size])
    key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)[1:]
    subject = Subject(denoiser, planned, judged, dataset.train, dataset.test, **options)
    distance = lambda x: metrics.sliced_w2(x, dataset.test, key_sliced, n_projections=PROJECTIONS).value
    start = jax.random.normal(key_start, dataset.train.shape, jnp.float32)
    floor = distance(forward(jnp.asarray(dataset.train), DIGITS_EARLY_STOP, start))
    start = spread(start)

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        return {"sliced_w2": distance(sample(subject.kernel(sampler), start, grid, key_run)), "floor": floor}

    return Case(DIGITS, planned, judged, measured, DIGITS_EARLY_STOP)
