"""Where the records and figures of the benchmarks are written."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"  # records of full runs
FIGURES = ROOT / "docs"
QUICK = ROOT / "runs" / "studies"  # records and figures of quick runs; git ignores them
