"""Figures and numbers of README.md and docs/ come from records of the benchmarks, or are listed here with the reason.

A paragraph or table row that names a study, or stands under a heading of SOURCES, is compared with what that study's
record states. Tables of measured numbers are compared cell by cell. Everything else is a definition (DEFINITIONS), or a
number in EXCEPTIONS.
"""

import pathlib
import re

import claims
import family
import pytest
from test_orders import ORDERS

from benchmarks import digits, step_throughput, work_precision
from benchmarks.__main__ import questions
from benchmarks.harness import places
from benchmarks.oracles import work_precision_tables
from benchmarks.samplers.padded_tables import BUDGETS
from jaxdiff import tables
from jaxdiff.guarantees.bounds import pedrotti2023

README = (places.ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((places.ROOT / "docs").glob("*.md"))}
NOTEBOOKS = {path.name: path.read_text(encoding="utf-8") for path in sorted((places.ROOT / "notebooks").glob("*.py"))}
MADE = {"work_precision.md": "work_precision"}  # pages that a benchmark writes whole
STUDIES = tuple(questions())

# By heading: the record that its paragraphs are compared with where they name no study.
SOURCES = {
    "jaxdiff": "dimension_sweep",
    "What a plan knows, and a certificate says": "planning",
    "Which kernel for which budget": "work_precision",
    "The two papers' algorithms, in full": "corrector",
    "What the demo measures": "digits",
    "Two commands": "digits",
    "Speed": "step_throughput",
    "The kernels": "work_precision",
}

# What is no measured number, and why.
DEFINITIONS = {
    r"\[0[0-9] [^\]]*(?=\])": "the title of a notebook",
    r"https?://\S+|\]\([^)]*\)": "an address",
    r"`[^`]*`": "code: names and arguments",
    r"\b(?:19|20)[0-9]{2}\b": "a year",
    r"arXiv:[0-9.]+|jax issue [0-9]+": "a paper, an issue",
    r"\b(?:Python|jax|flax|optax|orbax-checkpoint) [0-9]+(?:\.[0-9]+)+": "a version",
    r"\bTheorems? [0-9.]+(?: and [0-9.]+)?": "the name of a theorem",
    r"N\([^)]*\)": "a normal law",
    r"\b[0-9]+x[0-9]+\b": "a size: rows by columns, layers by width",
    r"(?<![\w.])(?:[dtTpNRmnh]|T1|eta|delta) ?[=<>≤≥] ?[0-9][0-9,.]*(?<![.,])": "a setting under its letter",
    r"\b(?:float|AVX-)[0-9]+|\bx86-64|\bSEEDS-2|UniPC-2|\b[23]M\b": "a name",
    r"O\([^)]*\)|KL/2|e\^-?[0-9][\w.]*|±1\b|[0-9] - [0-9]/[a-z]|1/N\b|1 - e|3/2 strong": "a formula",
    r"never as 0\b|data at 0\b|above 0\b|singular at 0\b": "zero",
}

# {heading: {number: reason}}: what no record holds. A number that the text no longer has is to be removed here.
EXCEPTIONS = {
    "Two commands": {"24": "the least number of rows: jaxdiff/app/data refuses fewer"},
    "Speed": {
        "1.4": "with and without the option of XLA, timed by hand",
        "1.8": "with and without the option of XLA, timed by hand",
        "15": "percent that two devices gain over one, timed by hand",
    },
    "Sweeps, many devices, many processes": {"10": "the argument of the command beside it"},
}
PLAIN = 12  # whole numbers up to it in pages of docs/ that no benchmark writes: formulas and counts


def paragraphs(text):
    """(heading, paragraph or table row or bullet) of a page, without blocks of code."""
    text = re.sub(r"^```.*?^```\n", "\n", text, flags=re.MULTILINE | re.DOTALL)
    heading, found = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif not line.strip():
            found.append((heading, ""))
        elif line.startswith(("|", "- ")) or not found or found[-1][0] != heading or not found[-1][1]:
            found.append((heading, line))
        else:
            found[-1] = heading, f"{found[-1][1]} {line.strip()}"
    return [(heading, line) for heading, line in found if line]


def table_under(heading, *, place=0):
    """The cells of the rows of a table under a heading of the README, its head first."""
    lines = README.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    found, inside = [], False
    for line in lines:
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
        inside = line.startswith("|")
    head, _, *rows = found[place]
    return [head, *rows]


COMPARED = {  # tables that tests below compare with records cell by cell: heading, and which one under it
    ("What a plan knows, and a certificate says", 1): "planning",
    ("Which kernel for which budget", 0): "work_precision",
    ("What the demo measures", 0): "digits",
    ("What the demo measures", 1): "digits",
    ("Speed", 0): "step_throughput",
}
KERNELS = "The kernels"
COMPARED_ROWS = {tuple(row) for heading, place in COMPARED for row in table_under(heading, place=place)}


def compared(heading, line):
    """What of a line no other test compares."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if line.startswith("|") and tuple(cells) in COMPARED_ROWS:
        return ""
    if heading == KERNELS and line.startswith("|"):
        return " | ".join([*cells[:2], *cells[4:]])  # evaluations and orders are compared below
    return line


def sources(heading, line):
    """The studies that a line is about."""
    named = [name for name in re.findall(r"`(?:python -m benchmarks\.)?([a-z_0-9]+)`", line) if name in STUDIES]
    return tuple(named) or ((SOURCES[heading],) if heading in SOURCES else ())


def claimed(text):
    """(heading, number, studies, line) of every number of a page that is no definition."""
    for heading, line in paragraphs(text):
        left = compared(heading, line)
        for definition in DEFINITIONS:
            left = re.sub(definition, " ", left)
        for number in claims.numbers_in(left):
            yield heading, number, sources(heading, line), line


def stated(number, studies):
    """Whether a record of these studies states a number."""
    return any(claims.agrees(number, value) for name in studies for value in claims.stated_by(name))


def test_every_number_of_the_readme_is_in_a_record_or_listed():
    missing = [
        f"{number} under {heading!r}: {line[:100]}"
        for heading, number, studies, line in claimed(README)
        if not stated(number, studies) and number not in EXCEPTIONS.get(heading, {})
    ]
    assert not missing, "in no record of the study named there, and not in EXCEPTIONS:\n" + "\n".join(missing)


def test_every_exception_is_needed():
    needed = {(heading, number) for heading, number, studies, _ in claimed(README) if not stated(number, studies)}
    listed = {(heading, number) for heading, numbers in EXCEPTIONS.items() for number in numbers}
    assert listed <= needed, f"no longer in the README, or in a record now: {sorted(listed - needed)}"


# A record states tens of numbers, so that a wrong one of one digit may be among them by chance; most are not.
def test_a_changed_number_is_noticed():
    found = [(number, studies) for _, number, studies, _ in claimed(README) if stated(number, studies)]
    wrong = [(other, studies) for number, studies in found if (other := changed(number)) != number]
    noticed = sum(not stated(number, studies) for number, studies in wrong)
    assert len(wrong) > 150
    assert noticed > 0.75 * len(wrong), (
        f"{noticed} of {len(wrong)}: not {sorted({n for n, s in wrong if stated(n, s)})}"
    )


def changed(number):
    """A number with another first digit, 3 more; a power of ten with another exponent."""
    power = "10^" * number.startswith("10^")
    digits = re.sub("[1-9]", lambda digit: str((int(digit[0]) + 3) % 10 or 1), number.removeprefix(power), count=1)
    return power + digits


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_is_in_a_record_or_plain(page):
    if page in MADE:
        rows = claims.record(MADE[page])["rows"]
        assert PAGES[page] == work_precision.page(rows, claims.record(MADE[page])["verdict"], pathlib.Path(page).stem)
        return
    missing = [
        f"{number} under {heading!r}: {line[:100]}"
        for heading, number, studies, line in claimed(PAGES[page])
        if not stated(number, studies)
        and number not in EXCEPTIONS.get(heading, {})
        and not (number.isdigit() and int(number) <= PLAIN)
    ]
    assert not missing, "in no record of the study named there, and not in EXCEPTIONS:\n" + "\n".join(missing)


def test_the_table_of_planning_is_its_record():
    rows = [row for row in claims.record("planning")["rows"] if "law" in row]
    laws = list(dict.fromkeys(row["law"] for row in rows))
    _, *printed = table_under("What a plan knows, and a certificate says", place=1)
    assert len(printed) == len(laws)
    for law, (_, *cells) in zip(laws, printed, strict=True):
        for row, cell in zip((row for row in rows if row["law"] == law), cells, strict=True):
            kl, *times = re.findall(r"[0-9.]+(?!/)", cell.replace("1/", ""))
            assert claims.agrees(kl, row["path_kl"]), f"{law}, {row['sampler']}: {cell}, and {row['path_kl']:.4g}"
            assert all(claims.agrees(one, row["times_less"]) for one in times), f"{law}: {cell}"


def test_the_table_of_budgets_is_its_record():
    found = work_precision_tables.recommendations(claims.record("work_precision")["rows"], BUDGETS)
    assert tables.table(found, ["evals", *work_precision_tables.CHOICES]) in README


def test_the_table_of_speed_is_its_record():
    rows = [row for row in claims.record("step_throughput")["rows"] if "median_ms" in row]
    cases = list(dict.fromkeys((row["score"], row["d"]) for row in rows))
    _, *printed = table_under("Speed")
    assert len(printed) == len(cases)
    for (score, d), (_, dimension, *cells) in zip(cases, printed, strict=True):
        of = {row["method"]: row for row in rows if (row["score"], row["d"]) == (score, d)}
        ms = {method: row["median_ms"] for method, row in of.items()}
        ours, times = re.fullmatch(r"(\S+) \((\S+)x\)", cells[0]).groups()
        assert claims.agrees(dimension, d)
        assert claims.agrees(times, of["jaxdiff"]["speedup"]), f"{score}, {d}: {times}"
        others = ["jaxdiff, plain function", "plain scan", *step_throughput.PEERS, "noise alone"]
        expected = [ms["jaxdiff"], *(ms.get(name) for name in others), min(ms["score alone"], ms["without noise"])]
        for cell, value in zip([ours, *cells[1:]], expected, strict=True):
            assert cell == "" if value is None else agrees_rounded(cell, value), f"{score}, {d}: {cell}, and {value}"


def agrees_rounded(cell, value):
    """Whether a cell is a time in milliseconds, of three digits or whole."""
    return claims.agrees(cell, value) or float(cell.replace(",", "")) == float(f"{value:.3g}")


SAMPLERS_OF_THE_DEMO = (
    ("exponential_euler", "Benton"),
    ("ancestral", "Benton"),
    ("ancestral", "planned"),
    ("moment_matched", "planned"),
    ("moment_matched_per_direction", "planned"),
    ("ddim", "planned"),
)


def test_the_table_of_quality_is_its_record():
    rows = [row for row in claims.record("digits")["rows"] if row["part"] == "quality"]
    floor = next(row for row in claims.record("digits")["rows"] if row.get("kernel") == "train rows")
    (_, _, *heads), *printed = table_under("What the demo measures")
    for name, cell in zip(("sliced_w2", "accuracy"), heads, strict=False):
        assert claims.agrees(*claims.numbers_in(cell.partition("floor")[2]), floor[name]), cell
    expected = [row for row in rows if row["evals"] in (8, 1000)]
    assert [row[0] for row in printed] == [row["sampler"] for row in expected]
    for row, (_, evals, *cells) in zip(expected, printed, strict=True):
        assert claims.agrees(evals, row["evals"])
        for name, cell in zip(digits.QUALITY, cells, strict=True):
            numbers, values = claims.numbers_in(cell), (row[name], row[f"{name}_error"])
            assert all(map(claims.agrees, numbers, values)), f"{row['sampler']}: {cell}, and {values}"


def test_the_plan_in_8_evaluations_is_as_close_as_1000_steps():
    rows = [row for row in claims.record("digits")["rows"] if row["part"] == "quality"]
    plan = next(row for row in rows if row["sampler"].startswith("the plan") and row["evals"] == 8)
    many = next(row for row in rows if row["sampler"].startswith("UniPC") and row["evals"] == 1000)
    for name in digits.QUALITY:
        assert plan[name] <= many[name] + many[f"{name}_error"], name


def test_the_table_of_the_demo_is_its_record():
    rows = [row for row in claims.record("digits")["rows"] if row["part"] == "sampler"]
    floor = next(row for row in rows if row["kernel"] == "train rows")
    of = {(row["kernel"], row["grid"]): row for row in rows if row.get("n_steps") == 20}
    (_, _, *floors), *printed = table_under("What the demo measures", place=1)
    for name, cell in zip(("sliced_w2", "accuracy"), floors, strict=True):
        assert claims.agrees(*claims.numbers_in(cell.partition("floor")[2]), floor[name]), cell
    assert len(printed) == len(SAMPLERS_OF_THE_DEMO)
    for sampler, (_, *cells) in zip(SAMPLERS_OF_THE_DEMO, printed, strict=True):
        for name, cell in zip(("excess", "sliced_w2", "accuracy"), cells, strict=True):
            values = [value for value in (of[sampler][name], of[sampler][f"{name}_error"]) if value is not None]
            numbers = claims.numbers_in(cell)
            assert len(numbers) == len(values), f"{sampler}: {cell}"
            assert all(map(claims.agrees, numbers, values)), f"{sampler}: {cell}, and {values}"


ORDER_OF = {"dpm_solver(score, 2, eta=1.0)": "dpm_solver 2 with noise", "dpm_solver(score, p)": "dpm_solver 2"}
ROWS_OF_KERNELS = [row for place in (0, 1) for row in table_under(KERNELS, place=place)[1:]]


@pytest.mark.parametrize("row", ROWS_OF_KERNELS, ids=lambda row: row[0].partition("(")[0].strip("`"))
def test_evaluations_and_orders_of_a_kernel_are_those_that_it_has(row):
    calls = re.findall(r"`([^`]+)`", row[0])
    for column, of in ((2, evaluations), (3, order)):
        told = [int(number) for number in re.findall(r"(?:^|, )([0-9])(?![/0-9])", row[column])]
        for call, number in zip(calls, told * len(calls) if len(told) == 1 else told, strict=False):
            assert of(call) in (number, None), f"{call}: {row[column]}, and it is {of(call)}"


def evaluations(call):
    """The score evaluations of a step of the kernel that a call makes."""
    name = call.partition("(")[0]
    return next(
        (family.make(case).evals_per_step for case in family.CASES if family.constructor_of(case) == name), None
    )


def order(call):
    """The order that the kernel's test confirms; None where it has none."""
    name = call.partition("(")[0]
    return ORDERS.get(ORDER_OF.get(call, "eta_family, denoiser" if name == "eta_family" else name))


def test_the_stretch_between_two_points_is_what_the_bound_has():
    assert f"e^{pedrotti2023.log_growth(5.0, 0.01, 1.0):.1f}" in README


FIGURES = sorted((places.ROOT / "docs").glob("*.png"))
OF_THE_DEMO = {"grids.png": "digits"}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: path.name)
def test_every_figure_is_drawn_by_a_benchmark_with_a_record_and_is_shown(figure):
    study = OF_THE_DEMO.get(figure.name, figure.stem)
    assert study in STUDIES, f"no benchmark makes {figure.name}"
    assert claims.record(study)["rows"], f"{figure.name} has no record"
    pages = [README, *(text for name, text in PAGES.items())]
    assert any(re.search(rf"\]\((?:docs/)?{figure.name}\)", page) for page in pages), f"nothing shows {figure.name}"


def test_every_picture_that_a_page_shows_is_in_docs():
    shown = re.findall(r"\]\(([^)]+\.(?:png|svg|jpg))\)", README)
    shown += [f"docs/{name}" for page in PAGES.values() for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)]
    shown += [
        f"notebooks/{name}" for page in NOTEBOOKS.values() for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    ]
    assert shown
    figures = {path.relative_to(places.ROOT).as_posix() for path in FIGURES}
    assert set(shown) <= figures, f"no benchmark makes {sorted(set(shown) - figures)}"
