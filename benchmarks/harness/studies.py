"""A study: its question, rows, verdict and figure, and how one is run."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from benchmarks.harness import command_line, places, records
from benchmarks.harness.environment import environment
from jaxdiff import tables


class Study(NamedTuple):
    """A question, the function that makes the rows, the one that states a verdict, and the one that draws them."""

    name: str
    question: str
    rows: Callable  # (quick, repeats) -> rows
    columns: tuple[str, ...]
    verdict: Callable  # rows -> a sentence or two
    draw: Callable  # (rows, path) -> path
    hidden: tuple[str, ...] = ()  # parts that are too long to print
    seed: int = 0  # of all random draws
    double: bool = True  # float64 is on: float32 is too coarse for differences between laws
    peers: tuple[str, ...] = ()  # packages whose versions the record names


def main(study, argv=None):
    """Run a study: print table and verdict, write record and figure."""
    options = command_line.parsed(command_line.parser(study.question), argv)
    jax.config.update("jax_enable_x64", study.double)
    about = environment(study.peers) | {"seed": study.seed}
    print(study.question, end="\n\n")
    rows = study.rows(options.quick, options.repeats)
    shown = [row for row in rows if row.get("part") not in study.hidden]
    print(tables.table(shown, study.columns), end="\n\n")
    said = study.verdict(rows)
    print(said)
    record = options.json or (places.QUICK / f"{study.name}.json" if options.quick else None)
    folder = places.FIGURES if record is None else record.parent
    for path in (record, folder):
        if path is not None:
            (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
    print(records.write_rows(study.name, rows, study.question, said, about, record))
    print(study.draw(rows, folder / f"{study.name}.png"))
