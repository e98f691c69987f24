"""Rows of a long study, kept in a file as they are made: a run that was stopped goes on where it ended."""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def rows_of(cells: Iterable[tuple], make: Callable[..., dict[str, Any]], path: pathlib.Path) -> Iterator[dict]:
    """Yields make(*cell) for every cell, in order. A cell whose row is in the file already is not made again.

    path: a file of JSON lines, a cell and its row each. A last line that was cut off is dropped. Delete the file after
    a change of the code that makes rows.
    """
    done = {}
    if path.exists():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # nothing or a line that was cut off is behind them
        done = {json.dumps(cell): row for cell, row in map(json.loads, lines)}
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        name = json.dumps(cell)
        if name not in done:
            done[name] = make(*cell)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps([cell, done[name]])}\n")
        yield done[name]
