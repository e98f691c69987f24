"""Records in benchmarks/results: schema version, question, verdict, environment and rows, one row a line."""

import json
import pathlib

from benchmarks.harness import places
from benchmarks.harness.environment import environment, platform_slug
from jaxdiff.files import to_json, written

SCHEMA = 1  # the version of the keys below; it changes with their names or meaning
KEYS = ("schema", "question", "verdict", "environment", "rows")


def write_rows(name, rows, question, verdict, about=None, path=None):
    """Write a benchmark's record, a row a line, by default to benchmarks/results/NAME-PLATFORM.json; returns where.

    about: the environment at the start; None asks for it now.
    """
    path = pathlib.Path(path or places.RESULTS / f"{name}-{platform_slug()}.json")
    head = {"schema": SCHEMA, "question": question, "verdict": verdict, "environment": about or environment()}
    text = to_json(head).rstrip().removesuffix("}").rstrip()
    lines = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)
    with written(path) as draft:
        draft.write_text(f'{text},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
    return path


def read(path):
    """The record in a file.

    Raises:
      ValueError: the schema version is missing or is not the one that is written today, or the keys are others.
    """
    record = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has the schema version {record.get('schema')!r}, and {SCHEMA} is known: run the benchmark again."
        )
    if tuple(record) != KEYS:
        raise ValueError(f"{path} has the keys {', '.join(record)}, and a record has {', '.join(KEYS)}.")
    return record
