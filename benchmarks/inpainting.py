"""Which hidden pixels of a digit do the posterior methods find, and are their intervals right?

A network is trained on the digits of scikit-learn without any task. Of test digits the lower half is hidden, or 32
random pixels, and the others are seen with normal noise. Each method draws 39 completions of each of 50 digits by the
ancestral kernel (the SDE) in 100 steps, and of the first 10 digits by UniPC (the ODE) too.

Reported are the residual of the seen pixels in units of the noise, which is 1 for exact posterior draws; the root mean
square error of the mean of the completions on hidden pixels, where the range of pixels is 2; and the coverage of 80 %
intervals. An interval reaches from the 4th to the 36th of the 39 values of a pixel, so a truth that is exchangeable
with them lies in it with probability 0.8. Values are first rounded to the 17 grey levels of the data, and ties are
broken at random. Pixels that hardly vary in the train rows do not count. A
completion has burst where a pixel lies beyond 5: the guidance was too stiff for its steps.

The linear predictor is the exact posterior of the normal law with the train rows' mean and covariance. Its mean is the
best linear prediction.
"""

import itertools

import jax
import numpy as np

from benchmarks.harness import studies
from benchmarks.oracles.linear_posteriors import Problem
from benchmarks.samplers.inverse_problems import METHODS, draws, grid_of, score_of
from jaxdiff import kernels, plots

NAME = "inpainting"
QUESTION = "Which hidden pixels of a digit do the posterior methods find, and are their intervals right?"
HORIZON, EARLY_STOP, NOISE_STD, N = 5.0, 2e-3, 0.1, 100
TRAINING = {"quick": 300, "full": 2000}
DRAWS, LOW, HIGH, COVERED = 39, 4, 36, 0.8  # ranks LOW, ..., HIGH - 1 of the 40 possible ones lie in the interval
LEAST_SPREAD = 0.05  # of a pixel in the train rows; below it a pixel does not count
LEVELS = 16  # grey levels beyond 0
BURST = 5.0  # the pixels' range ends at 1
LINEAR, UNIPC, ANCESTRAL = "linear predictor", "UniPC", "ancestral"
KERNELS = {ANCESTRAL: kernels.ancestral, UNIPC: kernels.unipc}
DIGITS = {"quick": {ANCESTRAL: 10, UNIPC: 4}, "full": {ANCESTRAL: 50, UNIPC: 10}}
SHOWN, COMPLETIONS = (0, 1, 3, 6), 3  # digits, four different ones, and completions of each in the picture
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
    """The columns of a method from its completions x (n, DRAWS, 64); where some burst, their share alone."""
    burst = float(np.mean(~(np.abs(x) < BURST).all(-1)))
    if burst:
        return {"digits": len(x), "burst": burst}
    hidden = ~seen & counted
    errors = ((x.mean(1) - truth)[:, hidden] ** 2).mean(1)
    inside = covered(x[..., hidden], truth[:, hidden], rng).mean(1)
    rms, error = float(np.sqrt(errors.mean())), lambda values: float(values.std(ddof=1) / np.sqrt(len(values)))
    return {
        "digits": len(x),
        "burst": burst,
        "residual": float(np.sqrt(np.mean((x - y[:, None])[..., seen] ** 2)) / NOISE_STD),
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
    """A row for each mask, method and sampler, and the pictures of some digits."""
    size = "quick" if quick else "full"
    train, test, denoiser, moments = trained(TRAINING[size])
    truth, counted = test[: DIGITS[size][ANCESTRAL]].astype(np.float64), train.std(0) > LEAST_SPREAD
    y, found = truth + NOISE_STD * np.random.default_rng(0).normal(size=truth.shape), []
    for mask, seen in MASKS.items():
        found += [picture(mask, "truth", truth), picture(mask, "observed", np.where(seen, y, np.nan))]
        for method, sampler in ((LINEAR, ANCESTRAL), *itertools.product(METHODS, KERNELS)):
            rng, n = np.random.default_rng(4), DIGITS[size][sampler]
            if method == LINEAR:
                x, about = linear_completions(moments, seen, y, rng), {"method": method}
            else:
                x, about = completions(denoiser, method, sampler, seen, y[:n]), {"method": method, "sampler": sampler}
            found.append(
                {"part": "errors", "mask": mask, "N": N} | about | judged(x, truth[:n], y[:n], seen, counted, rng)
            )
            if sampler == ANCESTRAL:
                found += [picture(mask, method, x[:, index]) for index in range(COMPLETIONS)]
    return found


def picture(mask, of, images):
    """A row that holds the SHOWN digits of images (n, 64) for the figure; what is hidden or has burst is None."""
    shown = images[list(SHOWN)]
    shown = np.where(np.abs(shown) < BURST, shown, np.nan).round(3)
    return {"part": "pictures", "mask": mask, "of": of, "images": [
        [None if np.isnan(pixel) else pixel for pixel in image] for image in shown.tolist()
    ]}  # fmt: skip


def verdict(rows):
    """The best method against the linear predictor for each mask, residuals, coverage, and which runs burst."""
    found = [row for row in rows if row["part"] == "errors"]
    said = []
    for mask in dict.fromkeys(row["mask"] for row in found):
        own = {row["method"]: row for row in found if row["mask"] == mask and row.get("sampler") != UNIPC}
        linear, sound = own.pop(LINEAR), [row for row in own.values() if not row["burst"]]
        if not sound:
            said.append(f"{mask}: every method burst.")
            continue
        best = min(sound, key=lambda row: row["rms"])
        apart = linear["rms"] - best["rms"]
        error = np.hypot(linear["rms_error"], best["rms_error"])
        how = "below" if apart > 2 * error else "above" if apart < -2 * error else "within two standard errors of"
        residuals, coverage = ([row[name] for row in sound] for name in ("residual", "coverage"))
        right = [row["method"] for row in sound if abs(row["coverage"] - COVERED) <= 2 * row["coverage_error"]]
        said.append(
            f"{mask}: {best['method']} has the least error on hidden pixels, {best['rms']:.3f}, {how} the linear "
            f"predictor's {linear['rms']:.3f}; residuals are {min(residuals):.2f} to {max(residuals):.2f} of the "
            f"noise; 80 % intervals cover {min(coverage):.2f} to {max(coverage):.2f} ({linear['coverage']:.2f} of the "
            f"linear predictor), and {', '.join(right) or 'none'} within two standard errors of 0.80."
        )
    return f"{' '.join(said)} {of_bursts(found)}"


def of_bursts(found):
    """Which methods have completions that burst, by sampler."""
    of = lambda sampler: dict.fromkeys(r["method"] for r in found if r.get("sampler") == sampler and r["burst"])
    return " ".join(f"Some completions by {name} burst with {', '.join(of(name)) or 'no method'}." for name in KERNELS)


def draw(rows, path):
    """A sheet for each mask, a line for each digit: truth, observation, and completions by each method."""
    masks = list(dict.fromkeys(row["mask"] for row in rows))
    figure = plots.canvas(14, 3.3 * len(masks))
    for ax, mask in zip(np.atleast_1d(figure.subplots(len(masks), 1)), masks, strict=True):
        own = [row for row in rows if row["mask"] == mask]
        errors = {r["method"]: r.get("rms") for r in own if r["part"] == "errors" and r.get("sampler") != UNIPC}
        sheet(ax, f"{mask} hidden", [row for row in own if row["part"] == "pictures"], errors)
    return plots.saved(figure, path)


def sheet(ax, title, found, errors):
    """The images of one mask, a column for each row of the record, with a gap between methods."""
    left, pitch, gap = 0.0, 1.07, 0.4
    for of in dict.fromkeys(row["of"] for row in found):
        columns = [row["images"] for row in found if row["of"] == of]
        heading = f"{of}\nerror {errors[of]:.2f}" if errors.get(of) else of
        ax.text(left + len(columns) * pitch / 2, -0.12, heading, ha="center", va="bottom", fontsize=10, color=plots.INK)
        for images in columns:
            for line, image in enumerate(images):
                tile(ax, np.array(image, float).reshape(8, 8), left, line * pitch, of in errors)
            left += pitch
        left += gap
    ax.set(xlim=(-0.05, left - gap), ylim=(len(SHOWN) * pitch, -0.7), aspect="equal")
    ax.set_title(title, loc="left", fontsize=12, color=plots.INK, fontweight="bold")
    ax.set_axis_off()


def tile(ax, pixels, left, top, completed):
    """One image with a thin frame; a completion that burst is grey, with the word."""
    if completed and np.isnan(pixels).any():
        pixels = np.full((8, 8), -0.85)
        ax.text(left + 0.5, top + 0.5, "burst", ha="center", va="center", fontsize=8, color=plots.INK)
    corners = (left, left + 1, top + 1, top)
    ax.imshow(pixels, cmap=shades(), vmin=-1, vmax=1, extent=corners)
    ax.plot([left, left + 1, left + 1, left, left], [top, top, top + 1, top + 1, top], color="#b0b0b0", lw=0.6)


def shades():
    """Ink on paper; hidden pixels in a light blue."""
    from matplotlib import colormaps

    return colormaps["gray_r"].with_extremes(bad="#cfe3f2")


COLUMNS = (
    "mask", "method", "sampler", "digits", "burst", "residual", "rms", "rms_error", "coverage", "coverage_error",
    "spread",
)  # fmt: skip
STUDY = studies.Study(
    NAME, QUESTION, rows, COLUMNS, verdict, draw, ("pictures",), double=False, peers=("scikit-learn",)
)

if __name__ == "__main__":
    studies.main(STUDY)
