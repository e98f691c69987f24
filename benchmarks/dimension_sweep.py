"""How do the steps needed for a given path KL grow with the dimension, and with log(1/early stop)?

Exponential Euler on Benton's grid against ancestral, moment- and covariance-matched sampling on Benton's and on optimal
grids, exact score, horizon 7 for all: there the initial KL, which is not counted in N, is below 0.007 nats up to
d = 2^14 (at most (d/2) e^-2T for total variance d). N is the least number of steps with path KL <= eps^2, searched at
each d among exact path KLs of whole N: on Benton's grid 1 to 16 in turn, as KL was seen to rise there with N up to 13;
then growth by fours until the target is met, and a bracket narrowed until KL(N) <= eps^2 < KL(N - 1). "real"
interpolates log KL in log N between the two; to it exponents are fitted, on d >= 16, and on d >= 128. Beyond `most`
steps N is extrapolated from KL(most), by 1/N (1/N^2 for covariance matching), and marked; path_kl and bound are then
those at `most`. Optimal grids are polished shortest paths up to 512 steps (128 for covariance matching), beyond them
nodes of the continuum's density, a few of them spread uniformly in log snr: there their path KL is within 1 % (3 %) of
the former's.

Laws have total variance d at most, as Benton's Theorem 1 asks. Not products: eight bumps (in the span of their means,
at most eight directions, and N(0, 1/4) across: an exact change of coordinates), the same in eight directions and
nothing across, points at -sqrt(d) u and sqrt(d) u, and the digits. "marginal" is the N for a KL of the end points
<= eps^2, from N(0, I) at the horizon, by an exact recursion of variances: normal laws, Benton's grid.
"""

import dataclasses
import functools
import math

import numpy as np
from numpy.polynomial import legendre
from scipy import stats

from benchmarks import figures, studies
from jaxdiff import grids, information, kernels, plots, sweeps, targets
from jaxdiff.app.samplers import label_of
from jaxdiff.curves.panels import Panels, tabulated
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.processes import ou

NAME = "dimension_sweep"
QUESTION = "How do the steps needed for a path KL grow with dimension, and with log(1/early stop)?"
HORIZON = 7.0
DIMS, DELTAS, TARGETS = 2 ** np.arange(15), (1e-2, 1e-3, 1e-4), (1.0, 0.1, 0.01)
MANY_DELTAS, DELTA_DIM, DELTA_TARGET = [float(f"1e-{k}") for k in range(1, 9)], 64, 0.1
DRAWN = {"delta": 1e-3, "eps2": DELTA_TARGET}  # the guarantee of figure and table
FITTED, LATE = 16, 128  # least d of a fit; of one where a rank of 8 is small
INKS = (1, 0, 2, 3)  # of the kernels
PALE, HOLLOW = {"alpha": 0.5, "lw": 1.0, "ls": ":", "ms": 3}, {"ls": "none", "mfc": "white"}
DECIDED, STOPPED = 1.5, 1.05  # ratio of residuals that decides; of N over the last decades of delta that is no growth
MOST = {"quick": 10**5, "full": 10**6}  # steps whose path KL is computed
MOST_COVARIANCE = 4096
STRIDE = {"quick": 64, "full": 1}  # of the digits
IN_TURN, GROWTH, SECANTS = 16, 4, 6
BENTON, OPTIMAL = "Benton", "optimal"
EULER, ANCESTRAL, MOMENT, COVARIANCE = "exponential_euler", "ancestral", "moment_matched", "covariance_matched"
ORDER = {EULER: 1, ANCESTRAL: 1, MOMENT: 1, COVARIANCE: 2}  # path KL falls as N^-order
CELLS = 4000  # of the continuum's density
SPREAD = {1: 8, 2: 2}  # of its nodes, spread uniformly: by order
POLISHED = {1: 512, 2: 128}  # steps of a polished grid at most
CANDIDATES = {1: 257, 2: 129}  # candidate times; log det is dear
LOG_RATIO, WIDTH, NODES = -10.0, 2.0, 16  # of a table of log det: least log(h/snr), width of a panel of it, nodes
RATIO_PANELS = 23  # up to e^36: one step from the horizon to an early stop of 1e-8
RANK, BUMPS, BUMP_VARIANCE = 8, 8, 0.25
NORMAL, POINT, COINS, MIXTURE = "N(0, I)", "point mass", "product of ±1", "8 bumps"
FLAT, FLAT_MIXTURE, PAIR, DIGITS = "normal of rank 8", "8 bumps of rank 8", "points ±√d u", "digits"
GAUSSIAN = (NORMAL, POINT, FLAT)
FIXED_RANK = (FLAT, FLAT_MIXTURE)


def sampler(kernel, grid):
    """The name of a sampler in rows."""
    return f"{label_of(kernel)}, {grid}"


SAMPLERS = {sampler(kernel, grid): (kernel, grid) for kernel in ORDER for grid in (BENTON, OPTIMAL)}
WORST = sampler(EULER, BENTON)
ALL = tuple(name for name, pair in SAMPLERS.items() if pair != (EULER, OPTIMAL))
# Where every grid costs nothing the optimal one is none; covariance matching costs at most what moment matching does.
RUN = {
    NORMAL: tuple(name for name in ALL[:-2] if SAMPLERS[name] != (MOMENT, OPTIMAL)),
    POINT: tuple(name for name in ALL[:-2] if SAMPLERS[name][1] == BENTON),
    COINS: ALL,
    MIXTURE: ALL[:-2],
    FLAT: tuple(name for name in ALL if SAMPLERS[name] != (COVARIANCE, OPTIMAL)),
    FLAT_MIXTURE: ALL,
    PAIR: ALL,
    DIGITS: ALL[:-2],
}


def bump_means(d):
    """Eight centred directions drawn in R^d, scaled to variance (1 - 1/4) d, in coordinates of their span."""
    means = np.random.default_rng(0).normal(size=(BUMPS, d))
    means -= means.mean(0)
    means *= np.sqrt((1 - BUMP_VARIANCE) * d * BUMPS) / np.linalg.norm(means)
    return means if d <= BUMPS else np.linalg.qr(means.T, "r").T


def bumps(d):
    """Eight normal laws in the span of their means."""
    means = bump_means(d)
    return targets.mixture(np.full(BUMPS, 1 / BUMPS), means, np.full(means.shape, BUMP_VARIANCE))


def digits(stride=1):
    """Every stride-th digit as a point, each in 64 coordinates of mean variance 1."""
    from sklearn.datasets import load_digits

    rows = load_digits().data[::stride]
    rows = rows - rows.mean(0)
    return targets.point_masses(rows * np.sqrt(rows.shape[1] / np.sum(rows.var(0))))


@functools.cache
def block(name, d):
    """The block of a law that is not normal, with a tabulated curve."""
    make = {
        COINS: lambda: targets.point_masses([[-1.0], [1.0]]),
        PAIR: lambda: targets.point_masses([[-np.sqrt(d)], [np.sqrt(d)]]),
        MIXTURE: lambda: bumps(d),
        DIGITS: lambda: digits(d),
    }
    law = make[name]()
    return dataclasses.replace(law, mmse=read_off_tables(law.mmse))


@functools.lru_cache(maxsize=8)
def law_of(name, d, stride=1):
    """The law in d dimensions, a Target; of the digits every stride-th."""
    normal = functools.cache(lambda variance: targets.gaussian([0.0], [variance]))
    if name in GAUSSIAN:
        rank = {NORMAL: d, POINT: 0, FLAT: min(RANK, d)}[name]
        return targets.gaussian(np.zeros(d), np.where(np.arange(d) < rank, 1.0, 0.0))
    if name == DIGITS:
        return block(DIGITS, stride)
    if name == COINS:
        return targets.product([block(COINS, 1)] * d)
    one = block(MIXTURE, min(RANK, d)) if name == FLAT_MIXTURE else block(name, d)
    return targets.product([one] + [normal(BUMP_VARIANCE if name == MIXTURE else 0.0)] * (d - one.dim))


def read_off_tables(curve):
    """A curve without replicates whose value, integral and E log det are interpolated: fast at a million levels."""
    table = Panels(functools.partial(_log_det_series, curve))

    def log_det(snr, h):
        snr, h = np.broadcast_arrays(np.asarray(snr, np.float64), np.asarray(h, np.float64))
        levels, place = np.unique(snr.ravel(), return_inverse=True)
        at = (np.log(h.ravel() / snr.ravel()) - LOG_RATIO) / WIDTH
        panel = np.clip(at.astype(int), 0, RATIO_PANELS - 1)
        series = table(levels).reshape(len(levels), RATIO_PANELS, NODES)[place, panel]
        return legendre.legval(2 * (at - panel) - 1, series.T, tensor=False).reshape(snr.shape)

    return dataclasses.replace(tabulated(curve, curve.dim), log_det=log_det)


def _log_det_series(curve, snr):
    """(levels, panels x nodes): Legendre series of E log det(I + h Cov) in log(h/snr), analytic within pi of it."""
    nodes, weights = legendre.leggauss(NODES)
    ratio = np.exp(LOG_RATIO + WIDTH * (np.arange(RATIO_PANELS)[:, None] + (1 + nodes) / 2)).ravel()
    values = curve.log_det(snr[:, None], snr[:, None] * ratio).reshape(len(snr), RATIO_PANELS, NODES)
    fit = weights[:, None] * legendre.legvander(nodes, NODES - 1) * (np.arange(NODES) + 0.5)
    return (values @ fit).reshape(len(snr), -1)


class Sampling:
    """A kernel and a kind of grid on a law: its path KL for every number of steps."""

    def __init__(self, law, name, delta):
        self.law, self.delta, (self.kernel, self.kind) = law, delta, SAMPLERS[name]
        self.order, self.in_turn = ORDER[self.kernel], IN_TURN if self.kind == BENTON else 0
        self.cost = information.step_cost(self.kernel, law.mmse)
        self.kl = functools.cache(lambda n: self.total(self.grid(n)))

    def total(self, grid):
        """The path KL of a grid, rounding below 0 left out."""
        return max(float(np.sum(self.cost(grid[:-1], grid[1:]))), 0.0)

    def grid(self, n):
        """The grid of n steps."""
        if self.kind == BENTON:
            return grids.exponential_then_uniform(HORIZON, self.delta, n)
        if n > POLISHED[self.order]:
            return self.continuum(n)
        options = {"n_candidates": CANDIDATES[self.order], "around": self.continuum(CELLS)}
        polished = grids.optimal(self.cost, HORIZON, self.delta, n, **options)
        return min((polished, self.continuum(n)), key=self.total)

    @functools.cached_property
    def density(self):
        """Log snr and, up to it, the share of all nodes: a cell of cost c has c^(1/p) of them, c ~ width^p."""
        fine = grids.log_snr(HORIZON, self.delta, CELLS)
        each = np.maximum(self.cost(fine[:-1], fine[1:]), 0) ** (1 / (1 + self.order))
        whole = np.append(0, np.cumsum(each))
        return np.log(ou.snr(fine)), whole / whole[-1] if whole[-1] > 0 else np.linspace(0, 1, CELLS + 1)

    def continuum(self, n):
        """n steps of the density that is optimal for many, but for a few spread uniformly in log snr.

        Those are for where the density vanishes: a discrete law that is all but known.
        """
        u, share = self.density
        few = min(0.5, SPREAD[self.order] / n)
        share = (1 - few) * share + few * np.linspace(0, 1, len(u))
        grid = ou.time(np.exp(np.interp(np.linspace(0, 1, n + 1), share, u)))
        grid[0], grid[-1] = HORIZON, self.delta
        return grids.check_grid(grid)


def least_steps(kl, target, most, in_turn=0):
    """The least N with kl(N) <= target, for a kl that falls beyond N = in_turn; None where it is more than most."""
    for n in range(1, in_turn + 1):
        if kl(n) <= target:
            return n
    low, high = in_turn, in_turn + 1
    while kl(high) > target:
        if high == most:
            return None
        low, high = high, min(GROWTH * high, most)
    tries = 0
    while high - low > 1:
        n = (low + high) // 2
        if tries < SECANTS and low > 0 and kl(high) > 0:
            n = math.ceil(_crossing(low, kl(low), high, kl(high), target))
        n = min(max(n, low + 1), high - 1)
        low, high = (low, n) if kl(n) <= target else (n, high)
        tries += 1
    return high


def _crossing(low, kl_low, high, kl_high, target):
    """Where log KL, linear in log N between two N, is that of the target."""
    share = np.log(kl_low / target) / np.log(kl_low / max(kl_high, 1e-300))
    return float(low * (high / low) ** share)


def needed(kl, target, most, order, in_turn=0):
    """Columns: the least N, a real number in its place, and the KL at N, or at `most` where N is extrapolated."""
    n = least_steps(kl, target, most, in_turn)
    if n is None:
        real = most * (kl(most) / target) ** (1 / order)
        return {"steps": math.ceil(real), "real": real, "path_kl": kl(most), "extrapolated": True}
    return {"steps": n, "real": _crossing(n - 1, kl(n - 1), n, kl(n), target) if n > 1 else 1.0, "path_kl": kl(n)}


@functools.lru_cache(maxsize=1)
def sampling(law, dim, name, delta, stride):
    """The Sampling of a row; the rows of a law, dimension, sampler and early stop follow one another."""
    return Sampling(law_of(law, dim, stride), name, delta)


def steps_needed(dim, law, sampler, delta, eps2, most=MOST["full"], stride=1):
    """A row of the sweep: steps for path KL <= eps2, Theorem 1's bound at them, steps for the marginal KL."""
    one = sampling(law, dim, sampler, delta, stride)
    most = min(most, MOST_COVARIANCE) if one.kernel == COVARIANCE else most
    row = needed(one.kl, eps2, most, one.order, one.in_turn)
    if sampler == WORST:
        row |= bound(one, min(row["steps"], most), row["path_kl"])
    if law in GAUSSIAN and one.kind == BENTON and one.kernel != COVARIANCE:
        row["marginal"] = least_steps(functools.cache(lambda n: marginal_kl(one, n)), eps2, most, IN_TURN)
    return {name: rounded(value) for name, value in row.items()}


def rounded(value):
    """Six digits of a float."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def bound(one, n, path_kl):
    """Theorem 1 at n steps, initial KL included, and over the exact initial KL plus path KL."""
    law = one.law
    terms = benton2024.theorem1(one.grid(n), law.dim, second_moment=law.second_moment).terms
    initial = information.initial_kl(law.second_moment, law.dim, HORIZON)
    exact = max(float(initial) - information.mutual_information(law.mmse, HORIZON), 0.0) + path_kl
    value = math.fsum(term.value for term in terms)
    return {"bound": value, "ratio": value / exact}


def marginal_kl(one, n):
    """KL(q_delta || samples) from N(0, I) on a normal law of variances 0 and 1, by its recursion of variances."""
    grid = one.grid(n)
    extra = (one.law.mmse,) if one.kernel == MOMENT else ()
    rows = getattr(kernels, one.kernel)(one.law.score, *extra).coefficients(grid)
    rank = round(one.law.second_moment)
    each = {variance: gaussian_kl(rows, grid, variance) for variance in (0.0, 1.0)}
    return rank * each[1.0] + (one.law.dim - rank) * each[0.0]


def gaussian_kl(rows, grid, variance):
    """The KL of one coordinate of N(0, variance)."""
    noised = ou.alpha(grid) ** 2 * variance + ou.sigma(grid) ** 2
    keep = rows.keep - rows.gain / noised[:-1]
    after = np.append(np.cumprod(keep[:0:-1])[::-1], 1.0) ** 2  # what later steps make of a step's noise
    ratio = noised[-1] / (np.prod(keep) ** 2 + np.sum(after * rows.spread**2))
    return float(ratio - 1 - np.log(ratio)) / 2


def rows(quick, repeats):
    """Rows over dimensions, over early stops, and exponents of the former."""
    size = "quick" if quick else "full"
    dims, deltas = (DIMS[::2], DELTAS[1:2]) if quick else (DIMS, DELTAS)
    function = functools.partial(steps_needed, most=MOST[size], stride=STRIDE[size])
    found = []
    for law, name in ((law, name) for law, names in RUN.items() for name in names):
        dear = law == FLAT_MIXTURE and SAMPLERS[name][0] == COVARIANCE  # log det of each block by Monte Carlo
        if dear and quick:
            continue
        over = (DELTA_DIM,) if law == DIGITS else dims[dims >= RANK] if dear else dims
        swept = functools.partial(sweeps.run, function, law=law, sampler=name)
        found += tagged("d", swept(dims=over, delta=deltas, eps2=TARGETS))
        if law != DIGITS:
            found += tagged("early stop", swept(dims=(DELTA_DIM,), delta=MANY_DELTAS, eps2=DELTA_TARGET))
    return found + fits(found)


def tagged(part, rows):
    """Rows that say which part they are."""
    return [{"part": part} | row for row in rows]


def series(rows, part, *columns):
    """{values of columns: rows} of a part, in order."""
    found = {}
    for row in rows:
        if row["part"] == part:
            found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def fits(rows):
    """A row for each exponent in d, and for each growth in log(1/delta)."""
    keys = ("law", "sampler", "delta", "eps2")
    found = []
    for key, own in series(rows, "d", *keys).items():
        if len({row["dim"] for row in own}) > 1:
            part = "exponent" if key[2:] == tuple(DRAWN.values()) else "exponent, other guarantees"
            found.append({"part": part} | dict(zip(keys, key, strict=True)) | exponents(own))
    for key, own in series(rows, "early stop", *keys[:2]).items():
        found.append({"part": "growth"} | dict(zip(keys[:2], key, strict=True)) | growth(own))
    return found


def exponents(rows):
    """Exponents of N in d with 95 % intervals: from d = 16, from d = 128, from 16 without extrapolated rows."""
    asked, late = ([row for row in rows if row["dim"] >= least] for least in (FITTED, LATE))
    computed = [row for row in asked if not row.get("extrapolated")]
    found = {"extrapolated": len(asked) - len(computed)}
    for name, own in (("exponent", asked), ("late", late), ("computed", computed)):
        if len(own) > 2:
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), power(own), strict=True))
    return found


def power(rows):
    """Slope of log N against log d by least squares, and the ends of its 95 % interval, Student's."""
    x, y = (np.log([row[name] for row in rows]) for name in ("dim", "real"))
    x -= x.mean()
    slope = x @ y / (x @ x)
    error = np.sqrt(np.sum((y - y.mean() - slope * x) ** 2) / (len(x) - 2) / (x @ x))
    half = stats.t.ppf(0.975, len(x) - 2) * error
    return tuple(round(float(value), 5) for value in (slope, slope - half, slope + half))


def growth(rows):
    """How N grows with L = log(1/delta): order 0 if it stops, 1 for a + b L, 2 for (a + b L)^2, None if undecided.

    "linear" and "squared" are the two fits' residuals, the root of their mean square over the mean of N; an order is
    decided by a factor of 1.5 between them. "quadratic_share" is that of c L^2 in a + b L + c L^2 at the last L.
    """
    x, n = np.log([1 / row["delta"] for row in rows]), np.array([row["real"] for row in rows])
    size = lambda fitted: float(f"{np.sqrt(np.mean((fitted - n) ** 2)) / n.mean():.3g}")
    linear = size(np.polyval(np.polyfit(x, n, 1), x))
    squared = size(np.polyval(np.polyfit(x, np.sqrt(n), 1), x) ** 2)
    share = np.polyfit(x, n, 2)[0] * x[-1] ** 2 / n[-1]
    order = 1 if DECIDED * linear < squared else 2 if DECIDED * squared < linear else None
    if n[-1] < STOPPED * n[len(n) // 2]:
        order = 0
    return {"order": order, "linear": linear, "squared": squared, "quadratic_share": round(float(share), 3)}


def ends(rows, name, chosen):
    """The least and the greatest end of the intervals of an exponent, over rows of fits."""
    own = [row for row in rows if row["part"].startswith("exponent") and f"{name}_low" in row and chosen(row)]
    return min(row[f"{name}_low"] for row in own), max(row[f"{name}_high"] for row in own)


def judged(rows, centre, within, chosen):
    """Ends of intervals from d = 16, and from 128, each met or missed."""
    said = []
    for name, least in (("exponent", FITTED), ("late", LATE)):
        low, high = ends(rows, name, chosen)
        met = "met" if max(abs(low - centre), abs(high - centre)) <= within else "MISSED"
        said.append(f"{low:z.3f} to {high:z.3f} from d = {least} ({met})")
    return ", ".join(said)


def verdict(rows):
    """Exponents with the ends of their intervals, growth in log(1/delta), and Theorem 1 over what is exact."""
    flat = {
        kernel: judged(
            rows, 0, 0.05, lambda row, kernel=kernel: row["law"] in FIXED_RANK and SAMPLERS[row["sampler"]][0] == kernel
        )
        for kernel in (ANCESTRAL, MOMENT, COVARIANCE)
    }
    orders = {
        law: own[0]["order"] for (law, one), own in series(rows, "growth", "law", "sampler").items() if one == WORST
    }
    grows = {
        order: ", ".join(law for law in orders if orders[law] == order) for order in dict.fromkeys(orders.values())
    }
    names = {0: "not at all", 1: "like log(1/delta)", 2: "like log^2(1/delta)", None: "undecidedly"}
    growths = "; ".join(f"{names[order]} on {laws}" for order, laws in grows.items())
    euler = judged(rows, 1, 0.02, lambda row: row["sampler"] == WORST)
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    below = sum(ratio < 1 for ratio in ratios)
    return (
        "Exponents of N in d, least and greatest end of 95 % intervals over laws and guarantees: exponential Euler on "
        f"Benton's grid (1 ± 0.02 asked) {euler}; on laws of fixed rank (0 ± 0.05 asked) "
        f"{'; '.join(f'{label_of(kernel)} {said}' for kernel, said in flat.items())}. Exponential Euler's N grows "
        f"{growths}. {least_and_most(rows)}. Theorem 1 is {min(ratios):.3g} to {max(ratios):.3g} times the exact KL, "
        f"{f'BELOW IT IN {below} ROWS' if below else 'never below it'}."
    )


def least_and_most(rows):
    """A sentence on steps at the largest d on the mixture of fixed rank."""
    own = {row["sampler"]: row for row in drawn(rows, FLAT_MIXTURE) if row["dim"] == DIMS[-1]}
    best = min(own, key=lambda name: own[name]["real"])
    return (
        f"On {FLAT_MIXTURE} at d = {DIMS[-1]:,}, {DRAWN['eps2']:g} nats, early stop {DRAWN['delta']:g}, it takes "
        f"{own[WORST]['real']:.3g} steps and {best} {own[best]['steps']}"
    )


def drawn(rows, law):
    """The rows over d of a law at the guarantee of the figure."""
    return [row for row in rows if row["part"] == "d" and {"law": law, **DRAWN}.items() <= row.items()]


def draw(rows, path):
    """N against d on a law of fixed rank and on a product, and against the early stop on the product."""
    figure = plots.canvas(11.5, 5.2)
    axes = figure.subplots(1, 3, sharey=True)
    titles = {FLAT_MIXTURE: "eight bumps in 8 of d directions", COINS: "±1 in each of d coordinates"}
    for ax, (law, title) in zip(axes, titles.items(), strict=False):
        own = drawn(rows, law)
        _lines(ax, own, "dim")
        _slope_and_ratio(ax, own)
        figures.powers(ax, [1, 16, 256, 4096])
        ax.set(xlabel=f"dimension d (early stop {DRAWN['delta']:g})", title=title)
    _lines(axes[2], [row for row in rows if row["part"] == "early stop" and row["law"] == COINS], "delta")
    figures.powers(axes[2])
    axes[2].set_xticks([0.1, 1e-3, 1e-5, 1e-7], ["$10^{-1}$", "$10^{-3}$", "$10^{-5}$", "$10^{-7}$"])
    axes[2].minorticks_off()
    axes[2].invert_xaxis()
    axes[2].set(xlabel="early stop, OU time", title=f"±1 in each of {DELTA_DIM} coordinates")
    axes[0].set_ylabel(f"steps for a path KL of {DRAWN['eps2']:g} nats")
    for name, look in (("ancestral, moment, covariance matched on Benton's grid", PALE), ("extrapolated", HOLLOW)):
        axes[1].plot([], [], color=plots.INK, marker="o", label=name, **look)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return plots.saved(figure, path)


def _lines(ax, rows, column):
    """A line for each sampler, pale on Benton's grid but for exponential Euler; extrapolated points are hollow."""
    for name in dict.fromkeys(row["sampler"] for row in rows):
        own, (kernel, kind) = [row for row in rows if row["sampler"] == name], SAMPLERS[name]
        index, pale = list(ORDER).index(kernel), kind == BENTON and kernel != EULER
        look = {"color": figures.COLOURS[INKS[index]], "marker": figures.MARKERS[index], "ms": 5, "lw": 1.8}
        said = sampler(kernel, {BENTON: "Benton's grid", OPTIMAL: "optimal grid"}[kind])
        look |= PALE if pale else {"label": said}
        ax.plot([row[column] for row in own], [row["real"] for row in own], **look)
        beyond = [(row[column], row["real"]) for row in own if row.get("extrapolated")]
        if beyond and not pale:
            ax.plot(*zip(*beyond, strict=True), **look | HOLLOW | {"label": None})


def _slope_and_ratio(ax, rows):
    """A line of slope 1 above exponential Euler's, and how many times fewer steps the best sampler takes at the end."""
    of = {(row["sampler"], row["dim"]): row["real"] for row in rows}
    dims = sorted({row["dim"] for row in rows})
    last, above = dims[-1], 3 * of[WORST, dims[-1]] / dims[-1]
    ax.plot(dims, [above * d for d in dims], color="black", ls="--", lw=1.2, label="slope 1")
    fewer = of[WORST, last] / min(of[name, last] for name in ALL if (name, last) in of)
    said = f"at d = {last:,}:\n{round(fewer, 1 - math.floor(math.log10(fewer))):,.0f} times fewer steps"
    ax.text(0.97, 0.03, said, transform=ax.transAxes, ha="right", va="bottom", color=plots.INK, fontsize=9)


FITS = (*(f"{name}{end}" for name in ("exponent", "late", "computed") for end in ("", "_low", "_high")), "order")
COLUMNS = ("part", "law", "sampler", "extrapolated", *FITS, "linear", "squared", "quadratic_share")
HIDDEN = ("d", "early stop", "exponent, other guarantees")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, HIDDEN)

if __name__ == "__main__":
    studies.main(STUDY)
