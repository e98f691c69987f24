"""How far are the posterior samples of approximate likelihoods from the exact posterior, and do more steps help?

The data are a normal law with correlated coordinates (d = 8, 3 observations) and a mixture of two normal laws in the
plane (1 observation), with exact denoisers. Their posteriors are known in closed form. Each method runs UniPC with 20
to 200 evaluations for several observations of the law. Reported are the error of the mean in units of the posterior's
standard deviation, the relative error of the covariance, and sliced W2 beside the floor of two exact samples.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.oracles import normal_mixtures
from jaxdiff import grids, kernels, metrics, noise, plots, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

NAME = "posterior"
QUESTION = "How far are posterior samples of DPS, Pi-GDM, TMPD and MMPS from the exact posterior?"
HORIZON, EARLY_STOP, NOISE_STD = 7.0, 1e-3, 0.3
PARTICLES = {"quick": 1000, "full": 4000}
EVALS = {"quick": (20, 100), "full": (20, 50, 100, 200)}
OBSERVATIONS = {"quick": 2, "full": 6}
DIVERGED = 1e3  # a sliced W2 of so much, in units of data with variance about 1, is not a distance of samples
METHODS = {
    "DPS": scores.reconstruction_guidance,
    "scaled": lambda *given, **more: scores.reconstruction_guidance(*given, scaled=True, **more),
    "Pi-GDM": scores.pi_gdm,
    "TMPD": scores.tmpd,
    "MMPS": scores.mmps,
}


def laws():
    """{name: (weights, means, covariances, A)}."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8)) / np.sqrt(8)
    normal = np.ones(1), rng.normal(size=(1, 8)) / 2, (root @ root.T + 0.05 * np.eye(8))[None]
    two = (
        np.array([0.4, 0.6]),
        np.array([[-1.0, 0.3], [0.8, -0.4]]),
        np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.05], [-0.05, 0.4]]]),
    )
    return {"normal": (*normal, rng.normal(size=(3, 8))), "mixture": (*two, np.array([[0.8, -0.5]]))}


def rows(quick, repeats):
    """A row for each law, method and number of evaluations; errors are root mean squares over observations."""
    size = "quick" if quick else "full"
    found = []
    for name, (*parts, matrix) in laws().items():
        denoiser = denoiser_from_score(targets.mixture(*parts).score)
        seen = _observations(parts, matrix, OBSERVATIONS[size])
        for method in METHODS:
            for evals in EVALS[size]:
                errors = [_errors(method, denoiser, parts, matrix, y, evals, PARTICLES[size]) for y in seen]
                means = {key: _root_mean_square([one[key] for one in errors]) for key in errors[0]}
                found.append({"law": name, "method": method, "evals": evals} | means)
    return found


def _root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values)))) if np.isfinite(values).all() else None


def _observations(parts, matrix, n):
    rng = np.random.default_rng(1)
    return normal_mixtures.draws(*parts, n, rng) @ matrix.T + NOISE_STD * rng.normal(size=(n, len(matrix)))


def _errors(method, denoiser, parts, matrix, y, evals, n):
    """Errors of n samples given y."""
    exact = normal_mixtures.posterior(*parts, matrix, y, NOISE_STD)
    mean, cov = normal_mixtures.moments(*exact)
    key, rng = jax.random.key(3), np.random.default_rng(4)
    score = score_from_denoiser(METHODS[method](denoiser, matrix, y, noise_std=NOISE_STD))
    start = noise.initial(key, jnp.arange(n), len(mean))
    x = np.asarray(sample(kernels.unipc(score), start, grids.log_snr(HORIZON, EARLY_STOP, evals), key))
    if not np.isfinite(x).all():
        return dict.fromkeys(("mean_error", "cov_error", "sliced_w2", "floor"), np.inf)
    truth, other = (normal_mixtures.draws(*exact, n, rng) for _ in range(2))
    return {
        "mean_error": np.linalg.norm(x.mean(0) - mean) / np.sqrt(np.trace(cov)),
        "cov_error": np.linalg.norm(np.cov(x.T) - cov) / np.linalg.norm(cov),
        "sliced_w2": metrics.sliced_w2(x, truth, key).value,
        "floor": metrics.sliced_w2(other, truth, key).value,
    }


def verdict(rows):
    """MMPS against the others with the most evaluations, and what more evaluations change."""
    most = max(row["evals"] for row in rows)
    said = []
    for law in dict.fromkeys(row["law"] for row in rows):
        last = {row["method"]: row for row in rows if row["law"] == law and row["evals"] == most}
        first = {row["method"]: row for row in rows if row["law"] == law and row["evals"] == rows[0]["evals"]}
        told = ", ".join(f"{name} {_shown(row['sliced_w2'])}" for name, row in last.items())
        said.append(
            f"{law}: sliced W2 with {most} evaluations is {told} (floor {last['MMPS']['floor']:.3g}); MMPS with "
            f"{rows[0]['evals']} evaluations has {_shown(first['MMPS']['sliced_w2'])}."
        )
    return " ".join(said)


def _shown(value):
    return "diverging" if value is None or value > DIVERGED else f"{value:.3g}"


def draw(rows, path):
    """Sliced W2 against evaluations, a panel for each law."""
    names = list(dict.fromkeys(row["law"] for row in rows))
    figure = plots.canvas(11, 4.2)
    for ax, law in zip(figure.subplots(1, len(names)), names, strict=True):
        for index, method in enumerate(METHODS):
            own = [row for row in rows if row["law"] == law and row["method"] == method and row["sliced_w2"]]
            own = [row for row in own if row["sliced_w2"] <= DIVERGED]
            look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ms": 4.5, "lw": 1.6}
            ax.plot([row["evals"] for row in own], [row["sliced_w2"] for row in own], label=method, **look)
        floor = [row["floor"] for row in rows if row["law"] == law and row["floor"]]
        ax.axhline(np.mean(floor), color=plots.INK, lw=0.9, ls="-.", label="floor of two exact samples")
        ax.set(title=law, xscale="log", yscale="log", xlabel="evaluations", ylabel="sliced W2 to the exact posterior")
    ax.legend(frameon=False, fontsize=9)
    return plots.saved(figure, path)


COLUMNS = ("law", "method", "evals", "mean_error", "cov_error", "sliced_w2", "floor")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
