"""Which completions of half a digit do posterior samplers find, and do they agree with the half that is seen?

The law is a mixture of normal laws about 1,500 of the digits, so its denoiser is exact. The upper half of each of six
other digits is observed with noise. The rows of the picture are the digit, what is observed of it, and samples given
the observation: exact ones, and those of MMPS, Pi-GDM and reconstruction guidance in its scaled form. Printed is the
root mean square of the samples' difference from the observation, in units of its noise.

    python -m benchmarks.inpainting [--quick]
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import command_line, places
from jaxdiff import grids, kernels, noise, plots, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

ROWS, SHOWN, SAMPLES = 1500, 6, 3
BANDWIDTH, NOISE_STD = 0.15, 0.1
METHODS = {
    "MMPS": lambda *given, **more: scores.mmps(*given, iterations=8, **more),
    "Pi-GDM": lambda *given, **more: scores.pi_gdm(*given, data_variance=0.3, **more),
    "scaled": lambda *given, **more: scores.reconstruction_guidance(*given, scaled=True, **more),
}


def digits():
    """The digits as rows in [-1, 1]: those of the law, and six others."""
    from sklearn.datasets import load_digits

    rows = np.asarray(load_digits(return_X_y=True)[0]) / 8 - 1
    return rows[:ROWS], rows[ROWS + 3 : ROWS + 3 + SHOWN]


def completions(method, law, y, keep, evals):
    """SAMPLES completions of each observation, (SHOWN, SAMPLES, 64)."""
    key, n = jax.random.key(0), len(y) * SAMPLES
    each = jnp.repeat(jnp.asarray(y, jnp.float32), SAMPLES, axis=0)
    score = score_from_denoiser(method(denoiser_from_score(law.score), keep, each, noise_std=NOISE_STD))
    start = noise.initial(key, jnp.arange(n), law.dim).astype(jnp.float32)
    ends = sample(kernels.unipc(score), start, grids.log_snr(5.0, 1e-3, evals), key, denoise=True)
    return np.asarray(ends).reshape(len(y), SAMPLES, -1)


def exact_completions(rows, y, keep):
    """SAMPLES draws of the exact posterior of each observation, and its root mean square misfit."""
    rng, variance, seen = np.random.default_rng(1), BANDWIDTH**2, NOISE_STD**2
    off = (y[:, None] - rows)[..., keep]  # (SHOWN, ROWS, 32)
    logs = -np.sum(off**2, -1) / (2 * (variance + seen))
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    squares = (seen / (variance + seen) * off) ** 2 + variance * seen / (variance + seen)
    misfit = np.sqrt(np.mean(np.sum(weights * squares.mean(-1), 1))) / NOISE_STD
    which = np.stack([rng.choice(len(rows), SAMPLES, p=one) for one in weights])
    gain = np.where(keep, variance / (variance + seen), 0)
    mean = rows[which] + gain * np.where(keep, y[:, None] - rows[which], 0)
    return mean + np.sqrt(variance * (1 - gain)) * rng.normal(size=mean.shape), misfit


def draw(columns, path):
    """A picture with one digit a column: the digit, the observation, and the samples of each method."""
    figure = plots.canvas(1.1 * SHOWN + 1.2, 1.1 * len(columns))
    axes = figure.subplots(len(columns), SHOWN)
    for row, (name, images) in enumerate(columns):
        for column, image in enumerate(images):
            axes[row, column].imshow(image.reshape(8, 8), cmap="gray", vmin=-1, vmax=1)
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].set_facecolor("0.5")  # what is not observed
        axes[row, 0].set_ylabel(name, fontsize=9)
    return plots.saved(figure, path)


def main(argv=None):
    """Print the misfit of every method, and draw its samples."""
    options = command_line.parsed(command_line.parser(__doc__.split("\n")[0]), argv)
    rows, truth = digits()
    law = targets.mixture(np.full(len(rows), 1 / len(rows)), rows, np.full(rows.shape, BANDWIDTH**2))
    keep = np.arange(64) < 32
    y = np.where(keep, truth + NOISE_STD * np.random.default_rng(0).normal(size=truth.shape), np.nan)
    exact, misfit = exact_completions(rows, y, keep)
    print(f"{'exact':8s} misfit {misfit:.3f} of the noise")
    columns = [("digit", truth), ("observed", y), *(("exact", exact[:, index]) for index in range(SAMPLES))]
    for name, method in METHODS.items():
        found = completions(method, law, y, keep, 30 if options.quick else 100)
        misfit = np.sqrt(np.mean((found - y[:, None])[..., keep] ** 2)) / NOISE_STD
        print(f"{name:8s} misfit {misfit:.3f} of the noise")
        columns += [(name, found[:, index]) for index in range(SAMPLES)]
    folder = places.QUICK if options.quick else places.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    print(draw(columns, folder / "inpainting.png"))


if __name__ == "__main__":
    main()
