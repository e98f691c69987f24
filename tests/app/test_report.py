"""The page and the table, from a report written by hand."""

import base64
import re

import pytest

from jaxdiff.app import page, report


def estimate(value, standard_error):
    return {"value": value, "standard_error": standard_error}


def step_ratio(withheld=None, **more):
    ratio = {"n_steps": 20, "sampler": "moment_matched_per_direction", "confidence": 0.95, "withheld": withheld}
    ratio |= {"excess": 5.848, "excess_interval": [5.51, 6.21], "rows": 300, "rows_needed": None, "heavy_tails": False}
    ratio |= {"exponential_euler_steps_interval": [216, 271], "ratio_interval": [10.8, 13.55]}
    counted = {"exponential_euler_steps": 242, "ratio": 12.1}
    return ratio | dict.fromkeys(counted) | ({} if withheld else counted) | more


def by_hand(name="digits"):
    steps = [("exponential_euler", "Benton", 10), ("ddim", "planned", 10), ("ddim", "planned", 20)]
    rows = [
        {"kernel": kernel, "grid": grid, "n_steps": n, "evals": n, "seconds": 0.126}
        | {"excess": None if kernel == "ddim" else estimate(228.673, 1.74)}
        | {"sliced_w2": estimate(0.27166, 0.00246), "accuracy": estimate(0.8575, 0.0)}
        | {"energy_distance": estimate(0.0312, 0.0044)}
        for kernel, grid, n in steps
    ]
    return {
        "data": name,
        "rows": rows,
        "noise_floor": {"sliced_w2": estimate(0.1, 12.0), "accuracy": estimate(0.5, 0.02)}
        | {"energy_distance": estimate(-0.004, 0.01)},
        "step_ratio": step_ratio(),
        "certificate_text": "KL(q || p) <= 6 & more",
        "certificate_w2_text": "W2(data, p) <= 3 & more",
        "lead": ["the samples: 2 < 3", "in units: 4 > 3"],
        "quality": [],
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


def headline(withheld=None, **more):
    return report.headline({"step_ratio": step_ratio(withheld, **more)})


ALONE = "This compares discretisation alone: both samplers also have the error of the network, which is unknown."


def test_the_headline_gives_the_ratio_with_its_interval_and_says_what_it_is_about():
    said = headline()
    assert said.startswith("About 12.1 times fewer steps (10.8 to 13.6, 95%) for the same excess of path KL: ")
    assert ": on the test rows moment matched per direction on its planned grid has 5.8 (5.5 to 6.3) nats" in said
    assert "in 20 steps, exponential Euler on Benton's grid in 242 (216 to 271) steps. " in said
    assert said.endswith(ALONE)
    assert headline(heavy_tails=True).endswith("heavy: the coverage of the interval may be below its confidence.")
    exact = headline(
        excess_interval=[5.848, 5.848],
        exponential_euler_steps_interval=[242, 242],
        ratio_interval=[12.1, 12.1],
    )
    assert exact.startswith("12.1 times fewer steps for")
    assert "5.85 nats" in exact
    assert "in 242 steps. " in exact


def test_without_a_ratio_the_headline_says_what_the_rows_do_not_tell_and_how_many_would():
    zero = {"excess": 13.7, "excess_interval": [-8.0, 36.0], "exponential_euler_steps_interval": [95, None]}
    said = headline("zero", **zero, rows_needed=760)
    assert said == (
        "On these test rows the excess of path KL of moment matched per direction on its planned grid in 20 steps "
        "(13.7 nats, 95% [-8, 36]) may be 0. About 760 test rows would be enough. Exponential Euler on Benton's grid "
        "needs at least 95 steps for it."
    )
    chance = headline("zero", **zero | {"excess": -0.02, "excess_interval": [-0.3, 0.26]})
    assert "(-0.02 nats, 95% [-0.3, 0.26]) may be 0. Below 0: an estimate from rows can be below 0 by chance" in chance
    assert "rows would be enough" not in chance
    none = {"exponential_euler_steps_interval": [None, None]}
    truly = headline("zero", **none, excess=-0.78, excess_interval=[-0.97, -0.6])
    assert "Below 0: it is measured against the same network used continuously" in truly
    assert "may be 0" not in truly
    assert "needs at least" not in truly
    few = headline("few", rows=4, rows_needed=30)
    assert few.startswith("4 test rows are too few to estimate how many steps the planned grid saves: use 30 or more.")
    wide = headline("wide", exponential_euler_steps_interval=[88, 1900], rows_needed=510)
    assert "Euler on Benton's grid needs 88 to 1,900 steps (95%). About 510 test rows would be enough." in wide
    assert "needs 88 or more steps (95%)" in headline("wide", exponential_euler_steps_interval=[88, None])
    assert "do not show that the planned grid saves steps" in headline("no fewer")
    assert "with any number of steps tried" in headline("none", **none)
    for text in (said, chance, truly, few, wide, headline("no fewer"), headline("none", **none)):
        assert "times fewer" not in text
        assert "None" not in text


def test_alternatives_are_printed_with_their_errors_and_intervals():
    row = {"kernel": "ancestral", "grid": "optimal", "evals": 20, "path_kl": 13.71, "per_direction": False}
    matched = {"kernel": "moment_matched", "per_direction": True, "standard_error": 0.346}
    euler = {"kernel": "exponential_euler", "evals": 682, "standard_error": 0.018, "evals_interval": [498, 756]}
    lines = report.alternatives([row, row | matched, row | euler, row | {"bound": "any_grid"}])
    assert lines == [
        "  alternative: ancestral on optimal: 13.71 nats with 20 evaluations",
        "  alternative: moment_matched per direction on optimal: 13.71 ± 0.35 nats with 20 evaluations",
        "  alternative: exponential_euler on optimal: 13.710 ± 0.018 nats with 680 (490 to 760) evaluations",
        "  alternative: ancestral on optimal: 13.71 nats with 20 evaluations, by bounds.any_grid",
    ]
    (_, said) = report.alternatives([row | {"path_kl": -0.2, "standard_error": 0.3}])
    assert "An excess below 0 is not a mistake" in said


def test_a_hostile_name_is_text_on_the_page(tmp_path):
    page.write_page(tmp_path / "report.html", by_hand('<script>alert("x")</script> & co'))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; co") == 2  # title and heading
    assert "KL(q || p) &lt;= 6 &amp; more" in text
    assert "a note: 1 &lt; 2" in text
    assert "a summary: 3 &gt; 2" in text


def test_the_page_has_a_row_for_every_sampler_and_the_floor_and_a_rule_between_step_counts(tmp_path):
    page.write_page(tmp_path / "report.html", by_hand())
    body = re.search("<tbody>(.*)</tbody>", (tmp_path / "report.html").read_text(encoding="utf-8"))[1]
    rows = re.findall(r"<tr([^>]*)>(.*?)</tr>", body)
    assert [bool(re.search(r'class="?first', attributes)) for attributes, _ in rows] == [False, False, True, True]
    assert [cells.count("<td>") for _, cells in rows] == [len(page.COLUMNS)] * 4


@pytest.mark.parametrize("there", [(), ("grids.png",), ("samples.png", "loss_curve.png", "grids.png")])
def test_pictures_that_are_there_are_inside_and_the_others_are_skipped(tmp_path, there):
    for name in there:
        (tmp_path / name).write_bytes(b"\x89PNG" + name.encode())
    page.write_page(tmp_path / "report.html", by_hand())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    inside = [base64.b64decode(data) for data in re.findall(r'<img[^>]* src="data:image/png;base64,([^"]*)"', text)]
    assert inside == [b"\x89PNG" + name.encode() for name in there]
    assert text.count("<img") == len(there)
    assert "http" not in text


@pytest.mark.parametrize("case", [(0.0, "1.235 ± 0.000"), (0.0123, "1.235 ± 0.012"), (0.5, "1.23 ± 0.50")])
def test_an_estimate_prints_its_error_to_two_digits(case):
    error, printed = case
    row = by_hand()["rows"][0] | {"excess": estimate(1.2346, error)}
    assert printed in report.text_table(by_hand() | {"rows": [row]})
