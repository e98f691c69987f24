"""How do samplers of jaxdiff and of other libraries compare, with the same target, score and number of evaluations?

The libraries are diffrax, diffusionjax, and on the CPU diffusers and azula (extra `peers`; a library that is not
installed is left out). For each law and number of evaluations one interleaved run in float32 starts all samplers from
the same draws of N(0, I) at T = 5 and takes them to 1e-3 on the same nodes (samplers/peers.py): equal steps of log snr
for the ODE, Benton's grid with noise. PyTorch runs eagerly, or with a compiled score; everything of JAX is compiled.
`first_s` is the first call, `seconds` the median of the others.

Deterministic methods are measured by the median relative distance to the end points of 2,000 steps of RK4 in float64; a
peer's end points are also compared with those of jaxdiff's method of the same name. Methods with noise are measured by
sliced W2 and energy distance to exact samples; the floor is the distance between exact samples. For a normal law the KL
of the samples' own moments is given too.
"""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.harness.timing import interleaved
from benchmarks.laws.mixtures import anisotropic, ring
from benchmarks.samplers import peers as peer_samplers
from benchmarks.samplers.peers import METHODS, Mixture, Problem
from jaxdiff import grids, kernels, metrics, plots, sample, targets
from jaxdiff.processes import forward, ou

NAME = "peers"
QUESTION = "Same target, same score, same evaluations: how do jaxdiff and its peers compare in accuracy and time?"
HORIZON, EARLY_STOP = 5.0, 1e-3
EVALS = {"quick": (10, 50), "full": (10, 20, 50, 100)}
PARTICLES = {"quick": 2**12, "full": 2**15}
SAMPLES, PROJECTIONS, FLOORS = 2048, 128, 4  # of energy distances; of sliced W2; exact samples for a floor
REFERENCE, REFERENCE_STEPS = 512, 2000  # particles and steps of the fine solution
SAME = 1e-3  # relative distance up to which two runs of a deterministic method agree; float32 tables leave 1e-5
ERRORS = 5  # standard errors up to which two energy distances agree
CLEARLY = 1 / 1.1  # a ratio of times below this is clearly faster
FAR = 3.0  # relative distances beyond it are not drawn
OURS = "jaxdiff"


def normal(d=16):
    """A normal law of variances from 1e-3 to 1."""
    return targets.gaussian(np.random.default_rng(d).normal(size=d), np.geomspace(1e-3, 1, d))


LAWS = {"normal, d = 16": normal, "ring of 8, d = 2": ring, "8 components, d = 16": lambda: anisotropic(16)}


def mixture_of(law):
    """A target's weights, means and variances."""
    c = law.score.args[0]
    return Mixture(c.log_weights, c.means, np.broadcast_to(c.variances, c.means.shape))


class Exact:
    """The reference: a fine solution of the ODE, and exact samples with their floors."""

    def __init__(self, law, x):
        fine, key = grids.log_snr(HORIZON, EARLY_STOP, REFERENCE_STEPS), jax.random.key(0)
        start = jnp.asarray(x[:REFERENCE], jnp.float64)
        self.law, self.ends = law, np.asarray(sample(kernels.rk4(law.score), start, fine, key))
        draws = [self.draw(jax.random.fold_in(key, i), len(x)) for i in range(1 + FLOORS)]
        self.samples, others = draws[0], draws[1:]
        self.floor = {
            "sliced_w2_floor": float(np.mean([self._sliced_w2(other) for other in others])),
            "energy_floor": max(abs(self._energy(other).value) for other in others),
        }
        if law.name == "gaussian":
            self.floor["kl_floor"] = float(np.mean([self.kl(other) for other in others]))

    def draw(self, key, n):
        """Exact samples of q_delta (n, d)."""
        own, noise = jax.random.split(key)
        drawn = self.law.sample(own, n)
        return np.asarray(forward(drawn, EARLY_STOP, jax.random.normal(noise, drawn.shape, drawn.dtype)))

    def _sliced_w2(self, x):
        return metrics.sliced_w2(x, self.samples, jax.random.key(1), n_projections=PROJECTIONS).value

    def _energy(self, x):
        return metrics.energy_distance(x[:SAMPLES], self.samples[:SAMPLES])

    def of_ode(self, x):
        """Columns of a deterministic method."""
        away = np.linalg.norm(x[:REFERENCE] - self.ends, axis=1) / np.linalg.norm(self.ends, axis=1)
        return {"distance": float(np.median(away))}

    def of_noise(self, x):
        """Columns of a method that draws noise."""
        energy = self._energy(x)
        found = {
            "sliced_w2": self._sliced_w2(x),
            "energy": energy.value,
            "energy_error": energy.standard_error,
        }
        return found | ({"kl": self.kl(x)} if self.law.name == "gaussian" else {}) | self.floor

    def kl(self, x):
        """KL of the normal law of the samples' moments to q_delta, about d (d + 3)/(4n) for exact samples."""
        c, alpha = mixture_of(self.law), ou.alpha(EARLY_STOP)
        scale = np.sqrt(alpha**2 * c.variances[0] + ou.sigma(EARLY_STOP) ** 2)
        z = (x - alpha * c.means[0]) / scale
        cov = np.cov(z.T)
        return float(np.trace(cov) + np.sum(z.mean(0) ** 2) - z.shape[1] - np.linalg.slogdet(cov)[1]) / 2


def case(name, law, exact, x, evals, repeats):
    """The rows of one interleaved run."""
    problem, ends = Problem(mixture_of(law), law, x, evals, HORIZON, EARLY_STOP), {}
    chosen = [one for one in METHODS if one.package == OURS or peer_samplers.installed(one.package)]
    functions = {one[:2]: _kept(one[:2], one.make(problem), ends) for one in chosen}
    timings = interleaved(functions, repeats)
    ends = {key: np.asarray(end, np.float64) for key, end in ends.items()}
    about = {"law": name, "d": law.dim, "particles": len(x), "evals": evals}
    return [about | _row(one, timings[one[:2]], ends, exact) for one in chosen]


def _kept(key, function, ends):
    """The function, which also keeps its result."""

    def called():
        ends[key] = function()
        return ends[key]

    return called


def _row(method, timing, ends, exact):
    """A row: the seconds of one sampler, and the distance of its end points."""
    end, own = ends[method[:2]], ends.get((OURS, method.name))
    row = {
        "package": method.package,
        "version": importlib.metadata.version(peer_samplers.library(method.package)),
        "method": method.name,
        "draws": method.draws,
        "seconds": timing.median,
        "spread": timing.spread,
        "first_s": timing.first,
    }
    if not np.isfinite(end).all():
        return row | {"diverged": True}
    if method.package != OURS and own is not None and not method.draws:
        row["from_ours"] = float(np.linalg.norm(end - own) / np.linalg.norm(own))
    return row | (exact.of_noise(end) if method.draws else exact.of_ode(end))


def rows(quick, repeats):
    """A row for every law, number of evaluations and sampler, and one for every library that is not installed."""
    size = "quick" if quick else "full"
    found = [{"package": name, "missing": True} for name in peer_samplers.NEEDS if not peer_samplers.installed(name)]
    for name, make in list(LAWS.items())[: 1 if quick else None]:
        law = make()
        x = np.random.default_rng(0).normal(size=(PARTICLES[size], law.dim)).astype(np.float32)
        exact = Exact(law, x)
        for evals in EVALS[size]:
            found += case(name, law, exact, x, evals, repeats)
    return found


def alike(rows):
    """(row of jaxdiff, row of a peer) of the same method in one run."""
    place = lambda row: (row["law"], row["evals"], row["method"])
    own = {place(row): row for row in rows if row["package"] == OURS}
    return [(own[place(row)], row) for row in rows if row["package"] != OURS and own.get(place(row))]


def agree(own, other):
    """Whether two runs of one method agree: in their end points, or in energy distances to within the errors."""
    if own.get("diverged") or other.get("diverged"):
        return own.get("diverged") == other.get("diverged")
    if not own["draws"]:
        return other["from_ours"] <= SAME
    return abs(own["energy"] - other["energy"]) <= ERRORS * energy_error(own, other)


def energy_error(own, other):
    """The standard error of a difference of energy distances, from the floor.

    Half of the floor is the error for equal laws.
    """
    return float(np.linalg.norm([own["energy_error"], other["energy_error"], own["energy_floor"] / 2]))


def nearer(row, other):
    """Whether a row's distance is smaller by more than 1 %, or its energy distance by more than the errors."""
    if row["draws"]:
        return row["energy"] < other["energy"] - ERRORS * energy_error(row, other)
    return row["distance"] < 0.99 * other["distance"]


def best(rows):
    """(best row of jaxdiff, best row of the peers) of each run and kind of method, by accuracy."""
    found, runs = [], dict.fromkeys((row["law"], row["evals"], row["draws"]) for row in rows)
    for run in runs:
        column = "energy" if run[2] else "distance"
        own = [row for row in rows if (row["law"], row["evals"], row["draws"]) == run and row.get(column) is not None]
        sides = [[row for row in own if (row["package"] == OURS) == ours] for ours in (True, False)]
        if all(sides):
            found.append(tuple(min(side, key=lambda row, column=column: row[column]) for side in sides))
    return found


def verdict(rows):
    """Whether methods of one name agree, the ratio of times, and the cases in which a peer is nearer."""
    missing = [row["package"] for row in rows if row.get("missing")]
    rows = [row for row in rows if not row.get("missing")]
    absent = f" Not installed: {', '.join(missing)}." if missing else ""
    pairs = alike(rows)
    if not pairs:
        return f"No peer to compare with.{absent}"
    apart = [
        f"{row['package']} {row['method']}, {row['law']}, {row['evals']}" for own, row in pairs if not agree(own, row)
    ]
    far = max((row["from_ours"] for _, row in pairs if "from_ours" in row), default=0.0)
    said = f"DISAGREE in {len(apart)}: {'; '.join(apart)}" if apart else "all agree"
    speeds = []
    for package in dict.fromkeys(row["package"] for _, row in pairs):
        ratios = [row["seconds"] / own["seconds"] for own, row in pairs if row["package"] == package]
        slower = f", faster than jaxdiff in {sum(r < 1 for r in ratios)} of {len(ratios)}" if min(ratios) < 1 else ""
        slower += f", by more than 10 % in {sum(r < CLEARLY for r in ratios)}" if min(ratios) < CLEARLY else ""
        speeds.append(f"{package} {np.median(ratios):.3g} ({min(ratios):.2g} to {max(ratios):.2g}{slower})")
    name = lambda row: f"{row['package']} {row['method']} on {row['law']} at {row['evals']}"
    sides = best(rows)
    won, lost = ([pair for pair in sides if nearer(*pair[::way])] for way in (1, -1))
    names = f": {'; '.join(name(peer) for _, peer in lost)}" if lost else ""
    return (
        f"{len(pairs)} runs of the same method: {said} (deterministic end points to {far:.2g}). Time over jaxdiff's, "
        f"median: {'; '.join(speeds)}. At equal evaluations jaxdiff's best method is nearer than the peers' best in "
        f"{len(won)} of {len(sides)} cases, theirs in {len(lost)}{names}.{absent}"
    )


def draw(rows, path):
    """Accuracy against wall time, a panel a law.

    Colour and marker stand for the package, the line style for the method.
    """
    rows = [row for row in rows if not row.get("missing") and not row.get("diverged")]
    rows = [row for row in rows if row["draws"] or row["distance"] < FAR]
    laws, styles = list(dict.fromkeys(row["law"] for row in rows)), ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
    packages = list(dict.fromkeys(one.package for one in METHODS))
    figure = plots.canvas(max(8, 3.6 * len(laws) + 1.5), 6.6)
    axes = figure.subplots(2, len(laws), squeeze=False)
    for (line, column), draws in zip(enumerate(("distance", "sliced_w2")), (False, True), strict=True):
        names = list(dict.fromkeys(row["method"] for row in rows if row["draws"] == draws))
        for ax, law in zip(axes[line], laws, strict=True):
            own = [row for row in rows if row["law"] == law and row["draws"] == draws]
            for package, name in dict.fromkeys((row["package"], row["method"]) for row in own):
                index, style = packages.index(package), styles[names.index(name)]
                curve = [(r["seconds"], r[column]) for r in own if (r["package"], r["method"]) == (package, name)]
                look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ls": style}
                ax.plot(*zip(*curve, strict=True), ms=4.5, lw=1.3, **look)
            if draws:
                ax.axhline(own[0]["sliced_w2_floor"], color="black", ls="--", lw=1)
            drawing.powers(ax)
            ax.set(title=law if line == 0 else None, xlabel="seconds")
        axes[line, 0].set_ylabel("sliced W2, data's units" if draws else "relative distance to the fine solution")
        handles = [
            axes[line, 0].plot([], [], color=plots.INK, ls=styles[i], label=name)[0] for i, name in enumerate(names)
        ]
        axes[line, -1].legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    handles = [
        axes[0, 0].plot([], [], drawing.MARKERS[i], color=drawing.COLOURS[i], label=name)[0]
        for i, name in enumerate(packages)
        if any(row["package"] == name for row in rows)
    ]
    handles += axes[0, 0].plot([], [], color="black", ls="--", lw=1, label="exact samples")
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    return plots.saved(figure, path)


COLUMNS = ("law", "evals", "package", "version", "method", "distance", "from_ours", "sliced_w2", "sliced_w2_floor")
MORE = ("energy", "kl", "kl_floor", "diverged", "missing", "seconds", "first_s")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, *MORE), verdict, draw, peers=(*peer_samplers.NEEDS, "torch"))

if __name__ == "__main__":
    studies.main(STUDY)
