"""What do the benchmarks ask, and what did their last runs say?"""

import ast
import pathlib

from benchmarks.harness import places, records

FOLDER = pathlib.Path(__file__).parent


def questions():
    """{name: question} of every script: the first sentence of its docstring."""
    asked = {}
    for path in sorted(FOLDER.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if path.stem != "__main__" and '\nif __name__ == "__main__":' in source:
            asked[path.stem] = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].replace("\n", " ")
    return asked


def verdicts(name):
    """(where it was run, verdict) of every record of a script: the kept ones first, then the last quick run's."""
    kept = sorted(places.RESULTS.glob(f"{name}-*.json"))
    for path in [*kept, places.QUICK / f"{name}.json"]:
        if path.exists():
            yield _said(path, "" if path in kept else ", --quick")


def _said(path, size):
    try:
        record = records.read(path)
    except ValueError as error:  # a quick run of an older version
        return "", str(error)
    about = record["environment"]
    return f"{about['device']}, {about['date']}, commit {about['commit']}{size}", record["verdict"]


def listing():
    """Lines that name every script with its question and its verdicts."""
    for name, question in questions().items():
        yield f"{name}\n  {question}"
        said = list(verdicts(name)) or [("", f"no record here: python -m benchmarks.{name}")]
        yield from (f"  > {verdict}{f' ({where})' if where else ''}" for where, verdict in said)


if __name__ == "__main__":
    print("\n".join(listing()))
