"""The page and the table, from a report written by hand."""

import base64
import re

import pytest

from jaxdiff import report


def estimate(value, standard_error):
    return {"value": value, "standard_error": standard_error}


def by_hand(name="digits", ratio=12.0):
    steps = [("exponential_euler", "Benton", 10), ("ddim", "planned", 10), ("ddim", "planned", 20)]
    rows = [
        {"kernel": kernel, "grid": grid, "n_steps": n, "evals": n, "seconds": 0.126}
        | {"excess": None if kernel == "ddim" else estimate(228.673, 1.74)}
        | {"sliced_w2": estimate(0.27166, 0.00246), "accuracy": estimate(0.8575, 0.0)}
        for kernel, grid, n in steps
    ]
    return {
        "data": name,
        "rows": rows,
        "noise_floor": {"sliced_w2": estimate(0.1, 12.0), "accuracy": estimate(0.5, 0.02)},
        "step_ratio": {
            "n_steps": 20,
            "sampler": "moment_matched_per_direction",
            "excess": 5.848,
            "exponential_euler_steps": 240 if ratio else None,
            "ratio": ratio,
        },
        "certificate_text": "KL(q || p) <= 6 & more",
        "summary": ["a summary: 3 > 2"],
        "notes": ["a note: 1 < 2"],
    }


def test_the_table_rounds_to_two_digits_of_the_error_and_lines_up():
    header, euler, first, second, floor = report.text_table(by_hand()).splitlines()
    assert euler.split("  ")[0] == "exponential Euler, Benton"
    for cell in ("228.7 ± 1.7", "0.2717 ± 0.0025", "0.858 ± 0.000", " 0.13"):
        assert cell in euler
    assert "not defined" in first
    assert "DDIM, planned" in second
    assert "0 ± 12" in floor
    assert floor.startswith("train rows (noise floor)")
    assert header.index("steps") + len("steps") == euler.index(" 10 ") + 3
    assert len({len(line) for line in (header, euler, first, second)}) == 1


def test_the_headline_names_both_step_counts_or_says_that_none_was_enough():
    said = report.headline(by_hand())
    assert said.startswith("12 times fewer steps")
    assert "5.85 nats" in said
    assert "in 20 steps" in said
    assert "in 240." in said
    assert ": moment matched per direction on its planned grid leaves" in said
    nothing = by_hand(ratio=None)
    nothing["step_ratio"]["excess"] = -0.02
    assert "leaves no excess of path KL that these test rows can tell from 0 in 20 steps" in report.headline(nothing)
    none = report.headline(by_hand(ratio=None))
    assert "5.85 nats in no number of steps" in none
    assert "None" not in none


def test_a_hostile_name_is_text_on_the_page(tmp_path):
    report.write_page(tmp_path / "report.html", by_hand('<script>alert("x")</script> & co'))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; co") == 2  # title and heading
    assert "KL(q || p) &lt;= 6 &amp; more" in page
    assert "a note: 1 &lt; 2" in page
    assert "a summary: 3 &gt; 2" in page


def test_the_page_has_a_row_for_every_sampler_and_the_floor_and_a_rule_between_step_counts(tmp_path):
    report.write_page(tmp_path / "report.html", by_hand())
    body = re.search("<tbody>(.*)</tbody>", (tmp_path / "report.html").read_text(encoding="utf-8"))[1]
    rows = re.findall(r"<tr([^>]*)>(.*?)</tr>", body)
    assert [bool(re.search(r'class="?first', attributes)) for attributes, _ in rows] == [False, False, True, True]
    assert [cells.count("<td>") for _, cells in rows] == [len(report.COLUMNS)] * 4


@pytest.mark.parametrize("there", [(), ("grids.png",), ("samples.png", "loss_curve.png", "grids.png")])
def test_pictures_that_are_there_are_inside_and_the_others_are_skipped(tmp_path, there):
    for name in there:
        (tmp_path / name).write_bytes(b"\x89PNG" + name.encode())
    report.write_page(tmp_path / "report.html", by_hand())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    inside = [base64.b64decode(data) for data in re.findall(r'<img[^>]* src="data:image/png;base64,([^"]*)"', page)]
    assert inside == [b"\x89PNG" + name.encode() for name in there]
    assert page.count("<img") == len(there)
    assert "http" not in page


@pytest.mark.parametrize("case", [(0.0, "1.235 ± 0.000"), (0.0123, "1.235 ± 0.012"), (0.5, "1.23 ± 0.50")])
def test_an_estimate_prints_its_error_to_two_digits(case):
    error, printed = case
    row = by_hand()["rows"][0] | {"excess": estimate(1.2346, error)}
    assert printed in report.text_table(by_hand() | {"rows": [row]})
