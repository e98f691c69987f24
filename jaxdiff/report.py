"""One page: the table of samplers, the pictures, the headline. It opens without a network."""

import base64
import html
import math
import pathlib

from jaxdiff.files import written
from jaxdiff.path_costs import label_of
from jaxdiff.plots import label

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.headline { font-size: 1.15rem; border-left: 4px solid #1f4e79; padding-left: .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; font-size: .9rem; }
th, td { padding: .2rem .4rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; font-size: .75rem; } tr.first td { border-top: 2px solid #888; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption, .small { color: #555; font-size: .9rem; }
"""

COLUMNS = (
    "sampler, grid",
    "steps",
    "excess of path KL, nats",
    "sliced W2 to test rows",
    "classifier accuracy (0.5 is perfect)",
    "score evaluations a sample",
    "seconds a batch",
)

PICTURES = (
    ("samples.png", "Generated beside real rows."),
    (
        "loss_curve.png",
        "The held-out loss of the denoiser against log snr: the one curve that every path KL is made of.",
    ),
    ("grids.png", "Benton's grid and the planned ones at the planned number of steps, and what each step costs."),
)


def text_table(report):
    """The table for a terminal."""
    rows = [("sampler, grid", "steps", "excess, nats", "sliced W2", "accuracy", "evals", "seconds")]
    rows += [_cells(row) for row in report["rows"]]
    rows.append(("train rows (noise floor)", "", "", *_two_sample(report["noise_floor"]), "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    line = lambda row: "  ".join(
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    )
    return "\n".join(line(row) for row in rows)


def headline(report):
    """The step ratio at equal excess, in one sentence."""
    ratio = report["step_ratio"]
    name = label_of(ratio["sampler"])
    name = name[0].upper() + name[1:]
    if ratio["excess"] <= 0:
        return (
            f"{name} on its planned grid leaves no excess of path KL that these test rows can tell from 0 in "
            f"{ratio['n_steps']} steps: their estimate is {ratio['excess']:.3g} nats."
        )
    if ratio["ratio"] is None:
        return f"Exponential Euler on Benton's grid reaches {ratio['excess']:.3g} nats in no number of steps tried."
    return (
        f"{ratio['ratio']:.0f} times fewer steps for the same excess of path KL: {name.lower()} on its planned grid "
        f"leaves {ratio['excess']:.3g} nats on the test rows in {ratio['n_steps']} steps, exponential Euler on "
        f"Benton's grid in {ratio['exponential_euler_steps']}."
    )


def write_page(path, report, *, pictures=None):
    """The page with its pictures inside, those that are there, from the folder `pictures`; default that of `path`."""
    folder = pathlib.Path(path).parent if pictures is None else pathlib.Path(pictures)
    shown = "".join(_picture(folder / name, caption) for name, caption in PICTURES if (folder / name).exists())
    rows = "".join(
        _table_row(row, previous) for row, previous in zip(report["rows"], [None, *report["rows"]], strict=False)
    )
    floor = "".join(f"<td>{cell}</td>" for cell in ("", "", *_two_sample(report["noise_floor"]), "", ""))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>jaxdiff: {html.escape(report["data"])}</title>
<style>{STYLE}</style></head><body>
<h1>{html.escape(report["data"])}: planned and certified</h1>
<p class="headline">{html.escape(headline(report))}</p>
{"".join(f"<p>{html.escape(line)}</p>" for line in report["summary"])}
<h2>Certificate of the planned sampler, on the test rows</h2><pre>{html.escape(report["certificate_text"])}</pre>
<h2>Samplers</h2>
<table><thead><tr>{"".join(f"<th>{name}</th>" for name in COLUMNS)}</tr></thead>
<tbody>{rows}<tr class="first"><td>train rows (noise floor)</td>{floor}</tr></tbody></table>
{"".join(f'<p class="small">{html.escape(note)}</p>' for note in report["notes"])}
{shown}
</body></html>
"""
    with written(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _cells(row):
    excess = "not defined" if row["excess"] is None else _plus_minus(row["excess"])
    name = label(row["kernel"], row["grid"])
    return (name, str(row["n_steps"]), excess, *_two_sample(row), str(row["evals"]), f"{row['seconds']:.2f}")


def _two_sample(row):
    return _plus_minus(row["sliced_w2"]), _plus_minus(row["accuracy"])


def _plus_minus(estimate):
    """Value and standard error, rounded to two digits of the error."""
    error = estimate["standard_error"]
    places = 3 if error == 0 else max(0, 1 - math.floor(math.log10(error)))
    return f"{estimate['value']:.{places}f} ± {error:.{places}f}"


def _table_row(row, previous):
    new_block = previous is not None and previous["n_steps"] != row["n_steps"]
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
    return f"<tr{' class=first' if new_block else ''}>{cells}</tr>"


def _picture(path, caption):
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    alt = html.escape(caption)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
