"""Do samplers that are run agree with their exact predictions at every dimension from 2 to 16,384?

Every sampler runs in float32 on laws padded to the largest dimension (padded_laws.py), one compilation for each kernel
and family of laws: dimensions, seeds and laws are batched by vmap and spread over all devices by sweeps.run. Two
things are measured. The law of the output, by moments: against linear recursions where it is Gaussian, a lattice where
it is the chain of one coordinate, and, for eight bumps along their span, unpadded float64 samples in that span. And the
path KL, by Girsanov from pairs (X_v, X_t) of the forward process, v uniform in every step, which use no curve: against
information.path_kl of the exact curve (for eight bumps of a Monte Carlo one, whose standard error is added).

z is the difference in standard errors, which come from the spread over particles, through Student's t to a normal
number. The verdict asks two things: |z| <= 5 everywhere, and chi-square of all z of each quantity.
"""

import collections
import dataclasses
import functools
import itertools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy import stats

from benchmarks import figures, padded_laws, studies
from jaxdiff import grids, information, kernels, noise, plots, sample, sweeps
from jaxdiff.path_costs import label_of
from jaxdiff.processes import forward, ou

NAME = "simulated_sweep"
QUESTION = "Do samplers that are run agree with their exact predictions at every dimension from 2 to 16,384?"
KERNELS = ("exponential_euler", "ancestral", "moment_matched")
FAMILIES = {"products": tuple(padded_laws.PRODUCTS), "mixtures": padded_laws.MIXTURES}
GRID = grids.exponential_then_uniform(5.0, 0.01, 40, n_uniform=16)
QUICK_DIMS, DIMS, SEEDS = 2 ** np.arange(1, 11), 2 ** np.arange(1, 15), 4
ON_CPU, ELSEWHERE = (32, 4), (256, 32)  # particles of each seed; rows at once
REFERENCE = 2**16  # particles of the chain in the bumps' span
REACH, NEGLIGIBLE = 9.0, 1e-16  # standard deviations, and masses, of the line's lattice
LARGEST, LEVEL = 5.0, 1e-3  # |z| of one; p of all
ROUNDING = 1e-9  # nats a coordinate
TRACES = collections.Counter()


def curve(law, d):
    """The mmse curve of a law."""
    return padded_laws.target(law, d).mmse


def kernel_of(name, score, law, d):
    """The kernel of a name with the coefficients for the law in d dimensions."""
    return kernels.moment_matched(score, curve(law, d)) if name == "moment_matched" else getattr(kernels, name)(score)


@functools.cache
def table(name, law, d):
    """The kernel's coefficients down the grid, float64."""
    return kernel_of(name, padded_laws.reduced(law, d).score, law, d).coefficients(GRID)


class Known(NamedTuple):
    """What a traced simulation looks up by law and dimension; every array begins with these two axes."""

    table: NamedTuple
    widened: np.ndarray  # the variance of each step, over that of ancestral
    rank: np.ndarray
    inverse_gram: np.ndarray


def known(name, family, dims):
    """What is known on the host of every law and dimension."""
    own, shape = [], (len(FAMILIES[family]), len(dims))
    for law, d in itertools.product(FAMILIES[family], map(int, dims)):
        widened = (table(name, law, d).spread / table("ancestral", law, d).spread) ** 2
        gram = padded_laws.inverse_gram(law, d) if family == "mixtures" else np.zeros(0)
        own.append(Known(table(name, law, d), widened, np.array(padded_laws.rank_of(law, d)), gram))
    return jax.tree.map(lambda *parts: np.stack(parts).reshape(*shape, *parts[0].shape), *own)


def simulation(name, family, dims, particles):
    """The function of mask, key and law (an index into the family) that sweeps.run traces: moments over particles."""
    tables = known(name, family, dims)
    build, measured = {
        "products": (padded_laws.product, of_products),
        "mixtures": (padded_laws.mixture, of_mixtures),
    }[family]

    def simulated(mask, key, law):
        TRACES[name, family] += 1
        place = law, jnp.argmax(jnp.asarray(dims) == jnp.sum(mask))
        here = jax.tree.map(lambda values: jnp.asarray(values)[place], tables)
        # One seed must not make laws and kernels alike: their z are taken together.
        number = law + padded_laws.LAWS.index(FAMILIES[family][0])
        key, key_pairs = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), KERNELS.index(name)))
        padded = build(law, mask)
        kernel = kernels.ancestral(Partial(padded_laws.score, padded))
        kernel = dataclasses.replace(kernel, name=name, coefficients=lambda grid: here.table)
        x = sample(kernel, noise.initial(key, jnp.arange(particles), mask.size), GRID, key)
        each = measured(padded, x, mask, here)
        each |= {"path KL": path_kl_of_particles(name, padded, mask, key_pairs, particles, here.widened)}
        moments = {"mean": jnp.mean, "var": functools.partial(jnp.var, ddof=1)}
        return {f"{what} {of}": moment(values) for what, values in each.items() for of, moment in moments.items()}

    return simulated


def _summed(values, mask):
    """Over coordinates that exist, in float64."""
    return jnp.sum(jnp.where(mask, values, 0), -1, dtype=jnp.float64)


def of_products(law, x, mask, here):
    """Means over coordinates inside and outside of the first `rank`, for every particle."""
    inside = jnp.arange(mask.size) < here.rank
    mean = lambda values, where: _summed(values, where) / jnp.maximum(jnp.sum(where), 1)
    return {
        "inside x²": mean(x**2, mask & inside),
        "inside x⁴": mean(x**4, mask & inside),
        "outside x²": mean(x**2, mask & ~inside),
    }


def of_mixtures(law, x, mask, here):
    """Along the span of the means and across it, and whether the nearest mean is one of an even number."""
    x = jnp.where(mask, x, 0)
    y = jnp.matmul(x.astype(jnp.float64), law.means.T.astype(jnp.float64))
    along = jnp.einsum("nk,kl,nl->n", y, here.inverse_gram, y)
    nearest = jnp.argmax(jnp.where(law.log_weights > -np.inf, y - jnp.sum(law.means**2, -1) / 2, -np.inf), -1)
    return {
        "inside x²": along / here.rank,
        "share": (nearest % 2 == 0).astype(jnp.float64),
        "outside x²": (_summed(x**2, mask) - along) / jnp.maximum(jnp.sum(mask) - here.rank, 1),
    }


# Girsanov: with the score frozen a step costs int E|s_v(X_v) - s(X_t, t)|^2 dv, with the denoiser frozen
# (1/2) int E|m_v(X_v) - m(X_t, t)|^2 dsnr. With w times the variance of ancestral, two Gaussians of the same means,
# (d/2)(log w + 1/w - 1) - (h/2)(1 - 1/w) E|X_0 - m(X_t, t)|^2 more, h = snr_next - snr.
def path_kl_of_particles(name, law, mask, key, n, widened):
    """(n,) unbiased estimates of the path KL from forward pairs: X_v, v uniform in a step, and X_t from it."""
    x0 = padded_laws.draws(law, key, n, mask.size)
    keys = tuple(word[:, None] for word in noise.particle_keys(key, jnp.arange(n)))
    coordinate = jnp.arange(mask.size, dtype=jnp.uint32)
    of_score, snr = name == "exponential_euler", ou.snr(GRID)
    frozen = padded_laws.score if of_score else padded_laws.denoiser

    def step(total, at):
        k, t, t_next, snr, snr_next, w = at
        z, z_on = noise.pair(keys, k, coordinate, jnp.float32)
        share = jax.random.uniform(jax.random.fold_in(key, k), (n, 1), jnp.float64)
        v = t + share * (t_next - t) if of_score else ou.time(snr + share * (snr_next - snr))
        xv = forward(x0, v, z)
        xt = forward(xv, t - v, z_on)
        then = frozen(law, xt, t.astype(jnp.float32))
        weight = t - t_next if of_score else (snr_next - snr) / 2
        cost = weight * _summed((frozen(law, xv, v.astype(jnp.float32)) - then) ** 2, mask)
        if name == "moment_matched":
            left = _summed((x0 - then) ** 2, mask)
            cost += jnp.sum(mask) / 2 * (jnp.log(w) + 1 / w - 1) - (snr_next - snr) / 2 * (1 - 1 / w) * left
        return total + cost, None

    along = np.arange(len(snr) - 1, dtype=np.uint32), GRID[:-1], GRID[1:], snr[:-1], snr[1:], widened
    return jax.lax.scan(step, jnp.zeros(n, jnp.float64), jax.tree.map(jnp.asarray, along))[0]


def gaussian_variance(name, law, d, variance):
    """E x^2 after the chain from N(0, 1), for coordinates N(0, variance): a linear recursion."""
    row, after = table(name, law, d), 1.0
    for t, keep, gain, spread in zip(*row, strict=True):
        after = (keep - gain / (ou.alpha(t) ** 2 * variance + ou.sigma(t) ** 2)) ** 2 * after + spread**2
    return float(after)


def line_law(score, row, fine=0.2):
    """Points and masses of the chain of one coordinate from N(0, 1): its density on lattices symmetric about 0.

    A step maps points and adds a normal increment, lattice spacings are `fine` of its standard deviation; points of
    mass below NEGLIGIBLE, and what is more than REACH standard deviations away, are left out.
    """
    spacing = fine * row.spread[0]
    y = spacing * (np.arange(-int(REACH / spacing), int(REACH / spacing)) + 0.5)
    p = stats.norm.pdf(y) * spacing
    for t, keep, gain, spread in zip(*row, strict=True):
        at = np.pad(y, (0, -len(y) % 1024))[:, None]  # few shapes, few compilations
        to = keep * y + gain * np.asarray(_evaluated(score, at, t))[: len(y), 0]
        spacing = fine * spread
        cells = int((np.abs(to).max() + REACH * spread) / spacing) + 1
        y = spacing * (np.arange(-cells, cells) + 0.5)
        y = y[_distance(y, np.sort(to)) < REACH * spread]
        p = stats.norm.pdf((y[:, None] - to) / spread) @ p * fine
        y, p = y[p > NEGLIGIBLE], p[p > NEGLIGIBLE]
    return y, p


@jax.jit
def _evaluated(score, x, t):
    return score(x, t)


def _distance(y, to):
    """From each y to the nearest of sorted points."""
    after = np.clip(np.searchsorted(to, y), 1, len(to) - 1)
    return np.minimum(np.abs(y - to[after - 1]), np.abs(y - to[after]))


def predictions(name, law, d):
    """{quantity: (value, its standard error, 0 where it is exact)}."""
    exact = curve(law, d)
    found = of_the_span(name, law, d)
    if padded_laws.rank_of(law, d) < d:
        found["outside x²"] = gaussian_variance(name, law, d, padded_laws.rest_variance(law)), 0.0
    path_kl = information.path_kl(name, GRID, exact), information.path_kl_error(name, GRID, exact)
    return found | {"path KL": path_kl}


def of_the_span(name, law, d):
    """Predictions where the law is not as in all other directions: a recursion, the line, or samples."""
    if law == padded_laws.BUMPS:
        return of_the_chain_in_the_span(name, d)
    if law == padded_laws.POINTS:
        return {"inside x²": (_moments(name, law, d)[0], 0.0), "share": (0.5, 0.0)}
    bump, variance, _ = padded_laws.PRODUCTS[law]
    second = gaussian_variance(name, law, d, variance)
    second, fourth = _moments(name, law, 2) if bump else (second, 3 * second**2)
    return {"inside x²": (second, 0.0), "inside x⁴": (fourth, 0.0)}


@functools.cache
def _moments(name, law, d):
    """E x^2 and E x^4 of the line's chain."""
    y, p = line_law(padded_laws.reduced(law, d).score, table(name, law, d))
    return float(p @ y**2), float(p @ y**4)


def of_the_chain_in_the_span(name, d):
    """Moments of the bumps' chain from unpadded float64 samples in the span of their means."""
    law, key = padded_laws.reduced(padded_laws.BUMPS, d), jax.random.key(d)
    x = noise.initial(key, jnp.arange(REFERENCE), law.dim, jnp.float64)
    x = np.asarray(sample(kernel_of(name, law.score, padded_laws.BUMPS, d), x, GRID, key))
    means = padded_laws.means_in_their_span(d)
    nearest = np.argmax(x @ means.T - np.sum(means**2, -1) / 2, -1)
    each = {"inside x²": np.mean(x**2, -1), "share": (nearest % 2 == 0).astype(np.float64)}
    return {what: (float(v.mean()), float(v.std(ddof=1) / np.sqrt(REFERENCE))) for what, v in each.items()}


def compared(particles, own, predicted, d):
    """Means of all seeds' particles beside a prediction; z by Student's t of that many."""
    means, variances = (np.array([row[of] for row in own]) for of in ("mean", "var"))
    n = particles * len(own)
    spread = ((particles - 1) * variances.sum() + particles * np.sum((means - means.mean()) ** 2)) / (n - 1)
    error, (value, value_error) = float(np.sqrt(spread / n)), predicted
    gap, by = float(means.mean()) - value, float(np.hypot(error, value_error))
    row = {"simulated": float(means.mean()), "error": error, "predicted": value, "predicted_error": value_error}
    if by == 0:  # all particles have the same path KL, 0: only the prediction's rounding may be between
        return row | {"n": n, "z": None if abs(gap) <= ROUNDING * d else float(np.copysign(37, gap))}
    tail = max(stats.t.sf(abs(gap) / by, n - 1), 1e-300)
    return row | {"n": n, "z": float(np.copysign(stats.norm.isf(tail), gap))}


def rows(quick, repeats):
    """A row for each kernel, law, dimension and quantity, and one for each compilation."""
    dims = [int(d) for d in (QUICK_DIMS if quick else DIMS)]
    particles, batch = ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE
    found = []
    for family, name in itertools.product(FAMILIES, KERNELS):
        TRACES.clear()
        laws, function = FAMILIES[family], simulation(name, family, dims, particles)
        began = time.perf_counter()
        simulated = sweeps.run(function, dims=dims, seeds=range(SEEDS), batch=batch, law=range(len(laws)))
        seconds = time.perf_counter() - began
        steps = len(simulated) * particles * max(dims) * (len(GRID) - 1)
        found += list(cells(simulated, name, laws, dims, particles))
        found.append(
            {"part": "run", "kernel": name, "family": family, "rows": len(simulated), "particles": particles}
            | {"compilations": TRACES.total(), "devices": jax.device_count(), "seconds": seconds}
            | {"steps_per_second": steps / seconds}
        )
    return found


def cells(simulated, name, laws, dims, particles):
    """The rows of one kernel: what its sweep's rows say beside each prediction."""
    own = collections.defaultdict(list)
    for row in simulated:
        own[laws[row["law"]], row["dim"]].append(row)
    for (law, d), seeds in own.items():
        for quantity, predicted in predictions(name, law, d).items():
            moments = [{of: row[f"{quantity} {of}"] for of in ("mean", "var")} for row in seeds]
            head = {"part": "cell", "kernel": name, "law": law, "d": d, "quantity": quantity}
            yield head | compared(particles, moments, predicted, d)


def verdict(rows):
    """How many numbers agree, the worst, the chi-square of all; compilations, seconds and speed."""
    found = [row for row in rows if row["part"] == "cell"]
    runs = [row for row in rows if row["part"] == "run"]
    random = [row for row in found if row["z"] is not None]
    worst = max(random, key=lambda row: abs(row["z"]))
    off = sum(abs(row["z"]) > LARGEST for row in random)
    p = level(random)
    z = np.array([row["z"] for row in random])
    judged = "agree" if off == 0 and p > LEVEL else "do NOT agree"
    dims = [row["d"] for row in found]
    where = f"{label_of(worst['kernel'])}, {worst['law']}, d = {worst['d']:,}, {worst['quantity']}"
    seconds = sum(row["seconds"] for row in runs)
    speed = sum(row["steps_per_second"] * row["seconds"] for row in runs) / seconds
    most = max(row["compilations"] for row in runs)
    return (
        f"Simulation and prediction {judged}: {len(found) - off} of {len(found)} numbers within {LARGEST:g} standard "
        f"errors at d = {min(dims)} to {max(dims):,}, {len(found) - len(random)} of them exactly; worst z "
        f"{worst['z']:.2g} ({where}), mean square z {np.mean(z**2):.3f}, chi-square p {p:.2g}. Compilations for each "
        f"kernel and family of laws: {most}; {sum(row['rows'] for row in runs):,} rows in {seconds:.0f} s on "
        f"{runs[0]['devices']} device{'s' * (runs[0]['devices'] > 1)}, {speed:.2g} padded particle-coordinate-steps a "
        f"second, each with a pair of forward draws beside it."
    )


def level(cells):
    """Two-sided p of the chi-square of z: the smallest over quantities times how many; two of one run are alike."""
    groups = collections.defaultdict(list)
    for cell in cells:
        groups[cell["quantity"]].append(cell["z"])
    sides = lambda z: [tail(np.sum(np.square(z)), len(z)) for tail in (stats.chi2.cdf, stats.chi2.sf)]
    return float(min(1.0, 2 * len(groups) * min(min(sides(z)) for z in groups.values())))


def draw(rows, path):
    """Path KL against d, simulated on exact, and all z below, a column for each kernel."""
    found = [row for row in rows if row["part"] == "cell"]
    figure = plots.canvas(11.5, 6.2)
    axes = figure.subplots(2, len(KERNELS), sharex=True, sharey="row", height_ratios=(3, 2))
    for (above, below), name in zip(axes.T, KERNELS, strict=True):
        for index, law in enumerate(padded_laws.LAWS):
            own = [row for row in found if (row["kernel"], row["law"]) == (name, law)]
            _path_kls(above, [row for row in own if row["quantity"] == "path KL"], index, law)
            shown = [(row["d"], row["z"]) for row in own if row["z"] is not None]
            d, z = np.array(shown).T if shown else ((), ())
            look = {"color": figures.COLOURS[index], "marker": figures.MARKERS[index]}
            below.plot(np.asarray(d) * 2 ** (0.1 * (index - 3)), np.clip(z, -8, 8), ls="", ms=2.6, alpha=0.7, **look)
        d = np.array([2, found[-1]["d"]])
        above.plot(d, 0.03 * d, "k--", lw=1.0, label="slope 1")
        figures.powers(above)
        above.set_title(label_of(name), fontsize=10)
        below.set_xscale("log", base=2)
        below.grid(alpha=0.25, lw=0.6)
        for end in (-LARGEST, LARGEST):
            below.axhline(end, color="black", lw=0.8, ls=":")
        below.set(ylim=(-8.5, 8.5), xlabel="dimension d")
    axes[0, 0].set_ylabel("path KL, nats")
    axes[1, 0].set_ylabel("(simulated - predicted)\n/ standard error")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=8
    )
    return plots.saved(figure, path)


def _path_kls(ax, rows, index, law):
    """Exact lines under simulated points with 1.96 standard errors; zeros have no place on a logarithmic axis."""
    rows = [row for row in rows if row["predicted"] > 1e-9 * row["d"]]
    d, simulated, error, predicted = (
        [row[column] for row in rows] for column in ("d", "simulated", "error", "predicted")
    )
    look = {"color": figures.COLOURS[index], "marker": figures.MARKERS[index], "ms": 4}
    ax.plot(d, predicted, color=look["color"], lw=1.0)
    ax.errorbar(d, simulated, 1.96 * np.array(error), ls="", lw=1.0, label=law, **look)


COLUMNS = ("kernel", "family", "rows", "particles", "compilations", "devices", "seconds", "steps_per_second")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, hidden=("cell",))

if __name__ == "__main__":
    studies.main(STUDY)
