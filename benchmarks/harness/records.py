"""Records in benchmarks/results: question, verdict, environment and rows, one row a line."""

import json
import pathlib

from benchmarks.harness import places
from benchmarks.harness.environment import environment, platform_slug
from jaxdiff.files import to_json, written


def write_rows(name, rows, question, verdict, about=None, path=None):
    """Write a benchmark's record, a row a line, by default to benchmarks/results/NAME-PLATFORM.json; returns where.

    about: the environment at the start; None asks for it now.
    """
    path = pathlib.Path(path or places.RESULTS / f"{name}-{platform_slug()}.json")
    head = to_json({"question": question, "verdict": verdict, "environment": about or environment()})
    lines = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)
    with written(path) as draft:
        draft.write_text(
            f'{head.rstrip().removesuffix("}").rstrip()},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8"
        )
    return path
