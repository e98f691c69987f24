"""What does truncating the score to the ball of the true denoiser change: its error, and the samples?

The data are 512 points in the plane, so that score, radius R and distance to the data are exact. The scores are two
networks, trained for few and for more steps, and the exact score with an outward push of L2 error 0.1 or 0.3 beyond a
circle that one particle in a thousand of q_T1 exceeds. Each is used as it is and truncated. Reported are its L2 error
and exponential moment at T1, with the diagnostics of that estimate and the bound from the truncated L2 error; and W2 to
the data after prediction-correction, beside that of the exact score and the floor of two exact samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks.harness import drawing, studies
from benchmarks.oracles.assignment import assignment_w2
from benchmarks.samplers import prediction_correction
from jaxdiff import grids, kernels, losses, networks, noise, plots, predict_correct, scores, targets, train
from jaxdiff.guarantees.bounds import pedrotti2023
from jaxdiff.kernels.langevin_limits import default_step
from jaxdiff.processes import forward
from jaxdiff.types import as_score

NAME = "truncation"
QUESTION = "What does truncation of the score change: its L2 error, its exponential moment, and the samples?"
POINTS, COPIES = 512, 2  # data points, and copies of each in the sample that is assigned to them
EARLY_STOP, LANGEVIN, REVERSAL = 1e-3, 64, 32
DRAWS = 100_000  # of q_T1, for the losses
FAR, SIZES = 1e-3, (0.1, 0.3)
STEPS = {"quick": (100, 1000), "full": (100, 3000)}
FLOORS = 4
PARTICLES = 2**10  # of a run whose wall time is measured


def points():
    """Three modes in the plane, drawn once."""
    rng = np.random.default_rng(0)
    centre = np.array([[1.0, 0.0], [-0.5, 0.75], [-0.5, -1.25]])[rng.choice(3, POINTS, p=[0.6, 0.3, 0.1])]
    return centre + 0.15 * rng.normal(size=(POINTS, 2))


def trained(data, steps):
    """The score of a network after so many batches of the points."""
    from flax import nnx

    start = networks.ResidualMLP(2, mean=data.mean(0), cov=np.cov(data.T), width=64, depth=2, rngs=nnx.Rngs(0))
    fitted = train.fit(
        start, data.astype(np.float32), jax.random.key(0), steps=steps, horizon=4.0, early_stop=EARLY_STOP
    )
    return scores.from_network(fitted.network)


def _pushed(score, size, radius, x, t):
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return score(x, t) + jnp.where(norm > radius, size / norm, 0).astype(x.dtype) * x


def pushed_out(score, l2, noised):
    """The score with an outward push of a given L2 error beyond the circle that a fraction FAR of q_T1 exceeds."""
    radius = np.quantile(np.linalg.norm(noised, axis=1), 1 - FAR)
    return Partial(_pushed, as_score(score), np.float64(l2 / np.sqrt(FAR)), np.float64(radius))


def rows(quick, repeats):
    """A row for each T1, score, and truncation or none."""
    data = points()
    law, radius = targets.point_masses(data), scores.radius_of(data, margin=0.0)
    steps = STEPS["quick" if quick else "full"]
    nets = {f"network, {n} steps": trained(data, n) for n in steps}
    floor = float(np.mean([assignment_w2(*pair) for pair in _exact_pairs(law)]))
    found = []
    for horizon in (1.0, 2.0) if quick else (0.8, 1.0, 1.5, 2.0, 3.0):
        key = jax.random.key(7)
        noised = forward(law.sample(key, DRAWS), horizon, jax.random.normal(key, (DRAWS, 2)))
        pushes = {f"pushed out, L2 {size:g}": pushed_out(law.score, size, noised) for size in SIZES}
        for name, score in ({"exact": law.score} | nets | pushes).items():
            for cut in (False, True):
                used = scores.truncated(score, radius) if cut else score
                row = _row(law, name, used, cut, radius, horizon, noised.astype(jnp.float32))
                seconds = prediction_correction.seconds(
                    used, 2, repeats, particles=PARTICLES, **_options(used, horizon)
                )
                found.append(row | {"floor": floor, "seconds": seconds})
    return found


def _options(score, horizon):
    h = default_step(kernels.langevin(score, horizon))
    grid = grids.log_snr(horizon, EARLY_STOP, REVERSAL)
    return {"horizon": horizon, "langevin_time": LANGEVIN * h, "step_size": h, "grid": grid}


def _row(law, name, score, cut, radius, horizon, noised):
    alpha = float(pedrotti2023.lsi_constant(horizon, radius))
    row = {"horizon": horizon, "score": name, "truncated": cut, "lsi_constant": alpha}
    key = jax.random.key(11)
    x = noise.initial(key, jnp.arange(POINTS * COPIES), 2).astype(jnp.float32)
    x = np.asarray(predict_correct(score, x, key, **_options(score, horizon)), np.float64)
    row["w2"] = assignment_w2(x, np.tile(points(), (COPIES, 1))) if np.isfinite(x).all() else None
    row["evals"] = LANGEVIN + REVERSAL
    if alpha > 0:  # without a log-Sobolev inequality there is no bound
        moment = losses.exponential_moment(score, law.score, noised, horizon, alpha=alpha, radius=radius)
        row |= {"l2": np.sqrt(moment.l2), "moment": moment.value, "effective": moment.effective_samples}
        row |= {"hill": moment.hill_index if np.isfinite(moment.hill_index) else None, "trusted": moment.trusted}
        row |= {"bound": moment.bound if cut else None}
    return row


def _exact_pairs(law):
    data = np.tile(points(), (COPIES, 1))
    for key in jax.random.split(jax.random.key(5), FLOORS):
        yield np.asarray(law.sample(key, len(data))), data


def pairs(rows):
    """(as it is, truncated) of each T1 and score."""
    return list(zip(rows[::2], rows[1::2], strict=True))


def verdict(rows):
    """The largest gain in W2, the changes for networks and for the exact score, and the exponential moments."""
    compared = [(a, b) for a, b in pairs(rows) if a["score"] != "exact"]
    size = lambda one: np.inf if one["w2"] is None else max(one["w2"], one["floor"])  # a W2 below the floor is noise
    ratio = lambda pair: size(pair[0]) / size(pair[1])
    best = max(compared, key=ratio)
    networks_too = [ratio(pair) for pair in compared if pair[0]["score"].startswith("network")]
    losing = sum(ratio(pair) < 1 / 1.02 for pair in compared)
    known = [pair for pair in compared if "moment" in pair[0]]
    before, after = (sum(not pair[i]["trusted"] for pair in known) for i in (0, 1))
    grown = sum(b["l2"] > a["l2"] * (1 + 1e-6) for a, b in known)
    before_w2 = "no finite samples" if best[0]["w2"] is None else f"W2 {best[0]['w2']:.3g}"
    return (
        f"It helps most on {best[0]['score']}, T1 = {best[0]['horizon']:g}: {before_w2} to "
        f"{best[1]['w2']:.3g} (floor {best[1]['floor']:.3g}); networks' W2 changes by factors of "
        f"{min(networks_too):.2f} to {max(networks_too):.2f}; W2 is more than 2 % worse in {losing} of {len(compared)} "
        f"cases. L2 errors that grew: {grown} of {len(known)}; moments not to be trusted: {before}, then {after}."
    )


def draw(rows, path):
    """W2 and exponential moment against T1, with and without truncation, and the bound on the truncated moment."""
    names = list(dict.fromkeys(row["score"] for row in rows))
    figure = plots.canvas(12.5, 4.8)
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(names):
        as_it_is, cut = (
            [row for row in rows if row["score"] == name and row["truncated"] is kind] for kind in (False, True)
        )
        _line(left, as_it_is, "w2", index, "-", name)
        _line(left, cut, "w2", index, "--")
        if name != "exact":  # the exact score's moment is rounding
            _line(right, as_it_is, "moment", index, "-")
            _line(right, cut, "moment", index, "--")
            _line(right, cut, "bound", index, ":")
    left.axhline(rows[0]["floor"], color=plots.INK, lw=0.9, ls="-.", label="floor of two samples")
    left.set(yscale="log", xlabel="T1", ylabel="W2 to the data")
    right.set(yscale="log", xlabel="T1", ylabel="exponential moment of the error at T1, nats")
    for style, label in (("-", "as it is"), ("--", "truncated"), (":", "bound on the truncated")):
        right.plot([], [], style, color=plots.INK, label=label)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    return plots.saved(figure, path)


def _line(ax, rows, column, index, style, label=None):
    shown = {row["horizon"]: row[column] for row in rows if row.get(column)}
    look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ms": 4.5, "lw": 1.6}
    ax.plot(list(shown), list(shown.values()), style, label=label, **look)


COLUMNS = ("horizon", "score", "truncated", "w2", "floor", "lsi_constant", "l2", "moment", "bound", "effective", "hill")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, "trusted", "evals", "seconds"), verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
