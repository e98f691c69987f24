"""Which hidden pixels of a digit do the posterior methods find, and are their intervals right?

A network is trained on the digits of scikit-learn without any task. Of 100 test digits the lower half is hidden, or 32
random pixels, and the others are seen with normal noise. Each method draws 39 completions of each digit in 100 steps,
with UniPC (the ODE) and with the ancestral kernel (the SDE).

Reported are the residual of the seen pixels in units of the noise, which is 1 for exact posterior draws; the root mean
square error of the mean of the completions on hidden pixels, where the range of pixels is 2; and the coverage of 80 %
intervals. An interval reaches from the 4th to the 36th of the 39 values of a pixel, so a truth that is exchangeable
with them lies in it with probability 0.8. Values are first rounded to the 17 grey levels of the data, and ties are
broken at random. Pixels that hardly vary in the train rows do not count.

The linear predictor is the exact posterior of the normal law with the train rows' mean and covariance. Its mean is the
best linear prediction.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.oracles.linear_posteriors import Problem
from benchmarks.samplers.inverse_problems import METHODS, draws, grid_of, score_of
from jaxdiff import kernels, plots

NAME = "inpainting"
QUESTION = "Which hidden pixels of a digit do the posterior methods find, and are their intervals right?"
HORIZON, EARLY_STOP, NOISE_STD, N = 5.0, 2e-3, 0.1, 100
TRAINING, DIGITS = {"quick": 300, "full": 3000}, {"quick": 10, "full": 100}
DRAWS, LOW, HIGH, COVERED = 39, 4, 36, 0.8  # ranks LOW, ..., HIGH - 1 of the 40 possible ones lie in the interval
LEAST_SPREAD = 0.05  # of a pixel in the train rows; below it a pixel does not count
LEVELS = 16  # grey levels beyond 0
BURST = 10.0  # a residual or an error beyond this belongs to runs that left the pixels' range
LINEAR, UNIPC, ANCESTRAL = "linear predictor", "UniPC", "ancestral"
KERNELS = {UNIPC: kernels.unipc, ANCESTRAL: kernels.ancestral}
SHOWN, COMPLETIONS = 4, 3  # digits and completions of each in the picture
MASKS = {
    "lower half": np.arange(64) < 32,
    "random half": np.random.default_rng(3).permutation(64) < 32,
}


def trained(steps):
    """(train rows, test rows, denoiser) of the digits as rows of 64 pixels in [-1, 1]."""
    from flax import nnx

    from jaxdiff import data, networks, train
    from jaxdiff.scores import denoiser_of

    dataset = data.load("digit_images")
    parts = {name: np.asarray(getattr(dataset, name)).reshape(-1, 64) for name in ("train", "held_out", "test")}
    mean, cov = dataset.moments()
    network = networks.ResidualMLP(64, mean=mean, cov=cov, width=192, depth=3, dropout=0.1, rngs=nnx.Rngs(0))
    options = {"held_out": parts["held_out"], "horizon": HORIZON, "early_stop": EARLY_STOP}
    fitted = train.fit(network, parts["train"], jax.random.key(0), steps=steps, **options)
    return parts["train"], parts["test"], denoiser_of(fitted.network), (mean, cov)


def completions(denoiser, method, sampler, seen, y):
    """DRAWS completions of each observation y (n, 64), (n, DRAWS, 64)."""
    score = score_of(method, denoiser, seen, np.repeat(y, DRAWS, axis=0).astype(np.float32), NOISE_STD)
    grid = grid_of(HORIZON, EARLY_STOP, N)
    x = draws(score, len(y) * DRAWS, 64, grid, jax.random.key(1), kernel=KERNELS[sampler], denoise=True)
    return x.reshape(len(y), DRAWS, 64)


def linear_completions(moments, seen, y, rng):
    """DRAWS draws of the linear predictor for each y, (n, DRAWS, 64)."""
    means, cov = Problem(*map(np.asarray, moments), np.eye(64)[seen], NOISE_STD).posterior(y[:, seen], 0.0)
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return means[:, None] + rng.normal(size=(len(y), DRAWS, 64)) @ root.T


def judged(x, truth, y, seen, counted, rng):
    """The columns of a method from its completions x (n, DRAWS, 64); None where runs burst."""
    hidden = ~seen & counted
    residual = float(np.sqrt(np.mean((x - y[:, None])[..., seen] ** 2)) / NOISE_STD)
    errors = ((x.mean(1) - truth)[:, hidden] ** 2).mean(1)
    rms = float(np.sqrt(errors.mean()))
    if not rms < BURST:
        return dict.fromkeys(("residual", "rms", "rms_error", "coverage", "coverage_error", "spread"))
    inside = covered(x[..., hidden], truth[:, hidden], rng).mean(1)
    error = lambda values: float(values.std(ddof=1) / np.sqrt(len(values)))
    return {
        "residual": residual,
        "rms": rms,
        "rms_error": error(errors) / (2 * rms),
        "coverage": float(inside.mean()),
        "coverage_error": error(inside),
        "spread": float(np.sqrt(x.var(1, ddof=1)[:, hidden].mean())),
    }


def covered(x, truth, rng):
    """(n, pixels) of bool: whether a truth's rank among the completions x (n, DRAWS, pixels) lies in the interval."""
    grey = lambda values: np.clip(np.rint((values + 1) / 2 * LEVELS), 0, LEVELS)
    values, level = grey(x), grey(truth)[:, None]
    below, ties = (values < level).sum(1), (values == level).sum(1)
    ranks = below + rng.integers(0, ties + 1)
    return (ranks >= LOW) & (ranks < HIGH)


def rows(quick, repeats):
    """A row for each mask, method and sampler, and the pictures of the first digits."""
    size = "quick" if quick else "full"
    train, test, denoiser, moments = trained(TRAINING[size])
    truth, counted = test[: DIGITS[size]].astype(np.float64), train.std(0) > LEAST_SPREAD
    y = truth + NOISE_STD * np.random.default_rng(0).normal(size=truth.shape)
    found = []
    for mask, seen in MASKS.items():
        about = {"mask": mask, "N": N}
        found += [pictures(mask, "truth", truth), pictures(mask, "observed", np.where(seen, y, np.nan))]
        for method, sampler in ((LINEAR, None), *itertools.product(METHODS, KERNELS)):
            rng = np.random.default_rng(4)
            linear = method == LINEAR
            x = linear_completions(moments, seen, y, rng) if linear else completions(denoiser, method, sampler, seen, y)
            found.append({"part": "errors", "method": method, "sampler": sampler} | about | judged(
                x, truth, y, seen, counted, rng
            ))  # fmt: skip
            found.append(pictures(mask, method, x, sampler))
    return found
