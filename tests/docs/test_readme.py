"""What the README shows runs and prints the numbers that it says; what it lists exists."""

import os
import pathlib
import re
import subprocess
import sys

import claims
import pytest

from jaxdiff import kernels

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python[^\n]*\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_shows_python():
    assert BLOCKS, "README.md has no ```python block"


# A fresh interpreter: this process has float64 and strict promotion on, a reader has neither.
@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {i}" for i in range(1, len(BLOCKS) + 1)])
def test_every_python_block_runs_as_a_reader_would_run_it(block, tmp_path):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = plain | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"
    printed = [claims.value_of(number) for number in claims.numbers_in(done.stdout)]
    told = [number for line in block.splitlines() for number in numbers_told(line)]
    wrong = [number for number in told if not any(claims.agrees(number, value) for value in printed)]
    assert not wrong, f"the block does not print {wrong}, as a comment says:\n{done.stdout[-2000:]}"


def numbers_told(line):
    """The numbers in the comment behind a line that prints."""
    code, _, comment = line.partition("  # ")
    return claims.numbers_in(comment) if code.startswith("print(") else []


@pytest.mark.parametrize("name", kernels.__all__)
def test_every_kernel_has_a_row_in_a_table(name):
    assert re.search(rf"^\|[^\n]*`[^`\n]*\b{name}\b", README, flags=re.MULTILINE), (
        f"no table row of README names {name}"
    )


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_targets_that_the_readme_names_exist(target):
    assert re.search(rf"\bmake {target}\b", README), f"README.md does not say `make {target}`"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"Makefile has no target {target}"


def test_every_make_target_and_command_the_readme_names_is_real():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    made = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"^\s*make ([a-z][a-z-]*)|`make ([a-z][a-z-]*)`", README, flags=re.MULTILINE))
    assert {a or b for a, b in named} <= made
    commands = set(re.findall(r"`jaxdiff ([a-z]+)", README))
    assert "train" in commands
    assert commands <= {"train", "plan", "sample", "certify", "sweep", "report"}
