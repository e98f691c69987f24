"""What do planned samplers reach on the digits, with the network that the demo trains?

The demo, `make demo`, trains, plans, samples and certifies in runs/digits. This script runs nothing anew: it makes the
record of that folder's report, and copies the figure of the grids to docs/.

    python -m benchmarks.digits [RUN]
"""

import json
import pathlib
import shutil

from benchmarks.harness import command_line, places, records
from benchmarks.harness.environment import environment
from jaxdiff import information, tables
from jaxdiff.app import report, run_folder

NAME = "digits"
QUESTION = "What do planned samplers reach on the digits, with the network that the demo trains?"
ESTIMATES = ("excess", "sliced_w2", "accuracy")  # each a value with its standard error
COLUMNS = ("kernel", "grid", "n_steps", *ESTIMATES, "evals")


QUALITY = ("sliced_w2", "accuracy", "energy_distance")


def quality(told):
    """A row for every sampler and number of evaluations of the report's picture of quality."""
    for row in told["quality"]:
        own = {"part": "quality", "sampler": row["label"], "evals": row["evals"]}
        yield own | {key: value for name in QUALITY for key, value in _estimate(name, row[name])}


def _estimate(name, estimate):
    """A value and its standard error; None for both where there is none."""
    value, error = (estimate["value"], estimate["standard_error"]) if estimate else (None, None)
    return ((name, value), (f"{name}_error", error))


def samplers(told):
    """A row for every sampler of a report, and one of the train rows, which are the noise floor."""
    floor = told["noise_floor"] | {"kernel": "train rows", "excess": None}
    for row in (*told["rows"], floor):
        own = {name: row[name] for name in ("kernel", "grid", "n_steps", "evals", "seconds") if name in row}
        yield (
            {"part": "sampler"} | own | {key: value for name in ESTIMATES for key, value in _estimate(name, row[name])}
        )


def last_step(folder):
    """A row: the W2 cost of the noise at the early stop, before and after a last denoising step."""
    run = run_folder.load(folder)
    moment = run.dataset.second_moment("held_out")
    noised = information.early_stopping_w2(moment, run.dataset.dim, run.early_stop)
    denoised = information.denoised_w2(run_folder.measured(run, "held_out"), run.early_stop)
    return {"part": "early stop", "early_stop": run.early_stop, "noised_w2": noised, "denoised_w2": denoised}


def rows(folder, told):
    """Quality against evaluations, samplers, the ratio of steps at equal path KL, and the last step."""
    return [*quality(told), *samplers(told), {"part": "steps"} | told["step_ratio"], last_step(folder)]


def main(argv=None):
    """Print the table and the report's headline; write the record and the figure."""
    parser = command_line.parser(QUESTION)
    parser.add_argument("run", nargs="?", default=places.ROOT / "runs" / "digits", type=pathlib.Path, metavar="RUN")
    options = command_line.parsed(parser, argv)
    told = json.loads((options.run / "report.json").read_text(encoding="utf-8"))
    found = rows(options.run, told)
    print(QUESTION, end="\n\n")
    print(tables.table([row for row in found if row["part"] == "sampler"], COLUMNS), end="\n\n")
    said = report.headline(told)
    print(said)
    if options.json or not options.quick:
        print(records.write_rows(NAME, found, QUESTION, said, environment(("scikit-learn",)), options.json))
        folder = places.FIGURES if options.json is None else options.json.parent
        print(shutil.copyfile(options.run / "grids.png", folder / "grids.png"))


if __name__ == "__main__":
    main()
