"""The notebooks run as scripts in small mode, and what is rendered beside them is theirs, whole and clean."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
RENDERED = [script.with_suffix(".ipynb") for script in SCRIPTS]
MOST_BYTES = 400_000
PATHS = re.compile(r"/(?:work|tmp|home|root|Users|usr|opt)\b")

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
each_rendering = pytest.mark.parametrize("notebook", RENDERED, ids=lambda path: path.stem)


def cells_of_script(text):
    """(kind, source) of every cell of a percent script; markdown without its comment signs."""
    _, *parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    cells = []
    for mark, body in zip(parts[::2], parts[1::2], strict=True):
        kind = "markdown" if "[markdown]" in mark else "code"
        source = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if kind == "markdown" else body
        cells.append((kind, source.strip("\n")))
    return cells


def cells_of_notebook(notebook):
    """(kind, source) of every cell of an .ipynb record."""
    return [(cell["cell_type"], "".join(cell["source"]).strip("\n")) for cell in notebook["cells"]]


def outputs_of(notebook):
    """Every output of an .ipynb record."""
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def test_there_are_six_notebooks_and_each_is_rendered():
    assert [script.stem[:2] for script in SCRIPTS] == [f"{number:02}" for number in range(1, 7)]
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == RENDERED


def test_a_percent_script_is_split_into_its_cells():
    text = "# a header\n# %% [markdown]\n# # Title\n#\n# - one\n\n# %%\nx = 1  # %% inside\n\n# %% [markdown]\n# end\n"
    assert cells_of_script(text) == [
        ("markdown", "# Title\n\n- one"),
        ("code", "x = 1  # %% inside"),
        ("markdown", "end"),
    ]


# A fresh interpreter: this process has float64 and strict promotion on, a reader has neither.
@pytest.mark.slow
@each_script
def test_every_notebook_runs_in_small_mode_as_a_plain_script(script, tmp_path):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    environment = plain | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "JAXDIFF_SMALL": "1"}
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr, done.stderr[-2000:]
    assert not list(tmp_path.iterdir()), "a notebook leaves no files behind"


@each_rendering
def test_a_rendering_has_the_cells_of_its_script(notebook):
    rendered = cells_of_notebook(json.loads(notebook.read_text(encoding="utf-8")))
    script = cells_of_script(notebook.with_suffix(".py").read_text(encoding="utf-8"))
    assert rendered == script, "the script has changed since: make notebooks"


@each_rendering
def test_a_rendering_has_run_from_top_to_bottom_with_pictures_and_without_errors(notebook):
    record = json.loads(notebook.read_text(encoding="utf-8"))
    counts = [cell["execution_count"] for cell in record["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = outputs_of(record)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []


@each_rendering
def test_a_rendering_tells_nothing_of_the_machine_and_is_small(notebook):
    record = json.loads(notebook.read_text(encoding="utf-8"))
    for output in outputs_of(record):
        output.get("data", {}).pop("image/png", None)  # base64 may spell anything
    found = PATHS.search(json.dumps(record))
    assert found is None, found
    assert record["metadata"]["kernelspec"]["name"] == "python3"
    assert set(record["metadata"]) == {"kernelspec", "language_info"}
    assert notebook.stat().st_size < MOST_BYTES
