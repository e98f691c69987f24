"""Which weight of the denoising loss is best, and does the weight that bounds the path KL give the best samples?

Nine weights, three seeds of each, one network (ResidualMLP) with 1,500 steps of 128 rows. Times are uniform in log snr,
so a weight is what it is after that density; all have the same loss at the best linear denoiser
(laws/loss_weights.py). The data are the digits, 1,198 rows of which a network can learn by heart, and 16,384 exact rows
of a mixture of eight normal laws. `fit` keeps the average with the least held-out loss, each by its own weight.

Theorem 1's weight g^2, which is snr here, is the only one whose loss is the network's part of the path KL. For every
other weight, a lower loss bounds the path KL up to the factor max r / min r of its ratio r to snr alone.

A row has the loss in bands of snr (on the mixture E|D - E[X_0 | X_t]|^2, which is exact); the path KL in nats, that is
(1/2) int L dsnr plus the 20 planned steps of moment matching; the W2 certificate of ten evaluations of UniPC of order
2; sliced W2 and a classifier's accuracy of their samples against test rows, whose floor is that of train rows; and on
the mixture the exponential moment of the score's error at T1 = 2, that Langevin at T1 pays for.
"""

import itertools

import numpy as np
from scipy.stats import spearmanr

from benchmarks.harness import cells, drawing, places, studies
from benchmarks.laws.loss_weights import BANDS, DEFAULT, THEOREM, WEIGHTS, spread
from benchmarks.oracles import weighted_networks as networks
from jaxdiff import plots

NAME = "loss_weighting"
QUESTION = "Which weight of the denoising loss is best: the one that bounds the path KL, or another?"
SEEDS = {"quick": 2, "full": 3}
QUICK_WEIGHTS = (THEOREM, "uniform")
MEASURES = {
    "path_kl": "path KL",
    "w2": "W2 certificate",
    "sliced_w2": "sliced W2",
    "accuracy": "classifier",
    "moment": "exponential moment",
}


def rows(quick, repeats):
    """A row for each network, then one for each floor, then one for each weight on each data set."""
    size = "quick" if quick else "full"
    names = QUICK_WEIGHTS if quick else tuple(WEIGHTS)
    data = (networks.MIXTURE,) if quick else (networks.DIGITS, networks.MIXTURE)
    asked = [(one, name, seed, size) for seed in range(SEEDS[size]) for one in data for name in names]
    kept = places.QUICK / f"{NAME}-{size}.jsonl"
    found = list(cells.rows_of(asked, networks.row, kept))
    found += [networks.floor(one) for one in data] + summaries(found)
    kept.unlink()
    return found


def summaries(found):
    """Means over the seeds of a weight on a data set, with their standard errors, and the factor of theory."""
    return [
        {"part": "weight", "data": data, "weight": name, "factor": spread(name), **_means(found, data, name)}
        for data in dict.fromkeys(row["data"] for row in found)
        for name in dict.fromkeys(row["weight"] for row in found)
    ]


def _means(found, data, name):
    means = {"loss": np.mean([row["loss"] for row in networks_of(found, data, name)], axis=0).tolist()}
    for measure in MEASURES:
        values = column(found, data, name, measure)
        if len(values):
            means |= {measure: float(values.mean()), f"{measure}_error": standard_error(values)}
    return means


def networks_of(rows, data, name):
    """The rows of the networks trained with a weight, by seed."""
    own = (row for row in rows if row["part"] == "network" and (row["data"], row["weight"]) == (data, name))
    return sorted(own, key=lambda row: row["seed"])


def column(rows, data, name, measure):
    """(seeds,) the values of a measure; none where the data have no such measure."""
    return np.array([row[measure] for row in networks_of(rows, data, name) if measure in row])


def standard_error(values):
    """That of a mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def ranked(rows, data, measure):
    """{weight: (mean, its distance above the best, standard error of the distance)}, best first; paired by seed."""
    names = dict.fromkeys(row["weight"] for row in rows if row["part"] == "network")
    of = {name: values for name in names if len(values := column(rows, data, name, measure))}
    best = min(of, key=lambda name: of[name].mean(), default=None)
    found = {name: (values.mean(), *_above(values, of[best])) for name, values in of.items()}
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _above(values, best):
    return float((values - best).mean()), standard_error(values - best)


def as_good(rows, data, measure):
    """The weights that are within two standard errors of the best, best first."""
    return [name for name, (_, above, error) in ranked(rows, data, measure).items() if above <= 2 * error]


def cases(rows):
    """(data, measure) of everything that was measured."""
    data = dict.fromkeys(row["data"] for row in rows if row["part"] == "network")
    return [(one, measure) for one in data for measure in MEASURES if ranked(rows, one, measure)]


def verdict(rows):
    """How far Theorem 1's weight is from the best in path KL, which weights are as good as the best, and how often."""
    data = dict.fromkeys(one for one, _ in cases(rows))
    kl = "; ".join(f"on the {one} {_of_kl(rows, one)}" for one in data)
    good = {case: as_good(rows, *case) for case in cases(rows)}
    names = list(dict.fromkeys(row["weight"] for row in rows if row["part"] == "network"))
    counts = {name: sum(name in own for own in good.values()) for name in names}
    most = max(counts.values())
    winners = " and ".join(name for name in names if counts[name] == most)
    other = ", ".join(f"{name} {counts[name]}" for name in names if counts[name] < most)
    first = lambda measure: ", ".join(good[one, measure][0] for one in data if (one, measure) in good)
    best = "; ".join(f"{said} {first(measure)}" for measure, said in MEASURES.items() if first(measure))
    return (
        f"Path KL: {kl}. Best in each measure ({', '.join(data)}): {best}. Within two standard errors of the best in "
        f"most of the {len(good)} cases: {winners}, {most}; others: {other or 'none'}. Rank correlation of the path KL "
        f"with theory's factor: {', '.join(f'{_rank(rows, one):.2f}' for one in data)}."
    )


def _of_kl(rows, data):
    order = ranked(rows, data, "path_kl")
    best = next(iter(order))
    said = f"{best} has the least, {order[best][0]:.4g} nats"
    for name in (THEOREM, DEFAULT):
        if name in order and name != best:
            said += f", {name} {order[name][1]:.2g} ± {order[name][2]:.1g} more"
    return f"{said}, {next(reversed(order))} the most, {order[next(reversed(order))][1]:.2g} more"


def _rank(rows, data):
    order = ranked(rows, data, "path_kl")
    return float(spearmanr([spread(name) for name in order], [one[0] for one in order.values()]).statistic)


def draw(rows, path):
    """For both data sets: the loss in bands of snr over the least, and the measures of every weight."""
    own = list(dict.fromkeys(one for one, _ in cases(rows)))
    names = list(dict.fromkeys(row["weight"] for row in rows if row["part"] == "network"))[::-1]
    figure = plots.canvas(15, 1.2 + 3.4 * len(own))
    axes = figure.subplots(len(own), 5, squeeze=False, width_ratios=(1.35, 1, 1, 1, 1))
    for data, line in zip(own, axes, strict=True):
        _bands(figure, line[0], rows, data, names)
        for ax, measure in zip(line[1:], MEASURES, strict=False):
            _dots(ax, rows, data, measure, names)
    return plots.saved(figure, path)


def _bands(figure, ax, rows, data, names):
    """The loss of every weight in every band, over the least of them."""
    of = {row["weight"]: row["loss"] for row in rows if row["part"] == "weight" and row["data"] == data}
    table = np.array([of[name] for name in names])
    table = table / table.min(0)
    ax.imshow(np.log(table), aspect="auto", cmap="viridis_r", vmin=0, origin="lower")
    for (row, col), value in np.ndenumerate(table):
        dark = np.log(table[row, col]) > 0.6 * np.log(table.max())
        ax.text(col, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ends = [f"{one:g}" for one in BANDS]
    ax.set_xticks(
        range(len(BANDS) + 1), [f"< {ends[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(ends)), f"> {ends[-1]}"]
    )
    ax.set_yticks(range(len(names)), names)
    what = "test loss" if data == networks.DIGITS else "exact error"
    ax.set(xlabel="snr", title=f"{data}: {what} over the least")


def _dots(ax, rows, data, measure, names):
    """A measure of every weight, a small dot for each seed; the floor of train rows; weights as good as the best."""
    good = as_good(rows, data, measure)
    for place, name in enumerate(names):
        values = column(rows, data, name, measure)
        colour = drawing.COLOURS[2] if name in good else drawing.COLOURS[7]
        ax.errorbar(values.mean(), place, xerr=standard_error(values), fmt="o", ms=6, color=colour, capsize=2)
        ax.plot(values, np.full(len(values), place), ".", ms=4, color=colour, alpha=0.5)
    floor = next(
        (row[measure] for row in rows if row["part"] == "floor" and row["data"] == data and measure in row), None
    )
    if floor is not None:
        ax.axvline(floor, color="black", lw=1, ls=":", label="train rows")
        ax.legend(frameon=False, fontsize=8)
    ax.set_yticks(range(len(names)), [])
    ax.set_ylim(-0.5, len(names) - 0.5)
    ax.grid(axis="y", alpha=0.2)
    units = {"path_kl": ", nats", "w2": ""}
    ax.set(title=f"{MEASURES[measure]}{units.get(measure, '')}")


COLUMNS = ("part", "data", "weight", "seed", "kept", "factor", *MEASURES, "score_nats", "steps_nats", "w2_steps")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, ("network",), double=False, peers=("scikit-learn",))

if __name__ == "__main__":
    studies.main(STUDY)
