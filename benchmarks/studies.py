"""What the studies share: a record, a figure and a verdict each, and how long samples take."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.optimize import linear_sum_assignment

from benchmarks import harness
from jaxdiff import noise, predict_correct, tables
from jaxdiff.types import as_score

QUICK = harness.ROOT / "runs" / "studies"  # records and figures of quick runs; those of full ones are kept
FIGURES = harness.ROOT / "docs"
PARTICLES = 2**16  # whose wall time stands beside evaluations


class Study(NamedTuple):
    """A question, how it is answered in rows, what they say in a line, and how they are drawn."""

    name: str
    question: str
    rows: Callable  # (quick, repeats) -> rows
    columns: tuple[str, ...]
    verdict: Callable  # rows -> a sentence or two
    draw: Callable  # (rows, path) -> path
    hidden: tuple[str, ...] = ()  # parts too long to print: they are in record and figure
    seed: int = 0  # of whatever is drawn
    peers: tuple[str, ...] = ()  # packages whose versions belong into the record


def main(study, argv=None):
    """Run a study: print table and verdict, write record and figure."""
    options = harness.parsed(harness.parser(study.question), argv)
    jax.config.update("jax_enable_x64", True)  # differences between laws are smaller than float32 tells apart
    about = harness.environment(study.peers) | {"seed": study.seed}
    print(study.question, end="\n\n")
    rows = study.rows(options.quick, options.repeats)
    shown = [row for row in rows if row.get("part") not in study.hidden]
    print(tables.table(shown, study.columns), end="\n\n")
    said = study.verdict(rows)
    print(said)
    record = options.json or (QUICK / f"{study.name}.json" if options.quick else None)
    folder = FIGURES if record is None else record.parent
    for path in (record, folder):
        if path is not None:
            (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
    print(harness.write_rows(study.name, rows, study.question, said, about, record))
    print(study.draw(rows, folder / f"{study.name}.png"))


def seconds(score, dim, repeats, *, particles=PARTICLES, **options):
    """Median wall time of predict_correct on so many particles, float32, compiled."""
    key = jax.random.key(0)
    x = noise.initial(key, jnp.arange(particles, dtype=jnp.uint32), dim).astype(jnp.float32)
    return harness.interleaved({"run": lambda: predict_correct(score, x, key, **options)}, repeats)["run"].median


def _shifted(score, size, after, x, t):
    error = jnp.where(t > after, size, 0.0) / np.sqrt(x.shape[-1])
    return score(x, t) + error.astype(x.dtype)


def shifted(score, size, after=0.0):
    """A score with an error of L2 norm `size` at times beyond `after`, the same everywhere, along (1, ..., 1)."""
    return Partial(_shifted, as_score(score), np.float64(size), np.float64(after))


def assignment_w2(x, y):
    """W2 of two samples of equal size, by an optimal assignment."""
    cost = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1) - 2 * x @ y.T
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(max(cost[rows, columns].mean(), 0)))
