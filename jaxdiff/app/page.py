"""The report of a run as a page, which needs no internet connection."""

import base64
import html
import pathlib

from jaxdiff.app.report import cells, headline, two_sample
from jaxdiff.files import written

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
    "energy distance",
    "score evaluations a sample",
    "seconds a batch",
)
LEADING = (
    ("samples.png", "Samples beside rows of the data."),
    (
        "quality.png",
        "Distances of samples from test rows against the evaluations that a sample costs, with one standard error. The "
        "grey band is the floor: train rows against test rows. Distances far above the others are cut off.",
    ),
)
PICTURES = (
    (
        "loss_curve.png",
        "The held-out loss of the denoiser against log snr. Every path KL is computed from this curve.",
    ),
    (
        "grids.png",
        "Benton's grid and the planned grids with the planned number of steps, and the path KL of each step.",
    ),
)


TRAINING = (
    ("training.png", "The loss on training batches and on held-out rows."),
    ("samples.png", "Samples in the last picture of the training, beside held-out rows."),
    ("loss_curve.png", "The held-out loss at that step against log snr."),
)


def write_page(path, report, *, pictures=None, training=None):
    """Write the page. It contains the pictures that are in its own folder, and in the folder `pictures`.

    Args:
      path: of the page.
      report: the contents of report.json; None before `jaxdiff certify`.
      pictures: a folder.
      training: (sentences, {name: path of a picture}) about the training; None to leave it out.
    """
    folders = [pathlib.Path(path).parent, *([] if pictures is None else [pathlib.Path(pictures)])]
    leading, shown = _pictures(LEADING, folders), _pictures(PICTURES, folders)
    certified = "" if report is None else _certified(report, leading)
    before = leading + shown if report is None else ""
    after = "" if report is None else _notes(report) + shown
    name, title = ("run", "training") if report is None else (report["data"], "planned and certified")
    name = html.escape(training[0][0] if report is None and training else name)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>jaxdiff: {name}</title>
<style>{STYLE}</style></head><body>
<h1>{name}: {title}</h1>
{certified}{before}{after}{"" if training is None else _training(*training)}
</body></html>
"""
    with written(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _certified(report, leading):
    """The headline, the certificates, and the table of samplers."""
    rows = "".join(
        _table_row(row, previous) for row, previous in zip(report["rows"], [None, *report["rows"]], strict=False)
    )
    floor = "".join(f"<td>{cell}</td>" for cell in ("", "", *two_sample(report["noise_floor"]), "", ""))
    return f"""<p class="headline">{html.escape(report["lead"][0])}</p>
{leading}
<h2>Certificate of the samples in W2, on the test rows</h2><pre>{html.escape(report["certificate_w2_text"])}</pre>
{_paragraphs(report["lead"][1:])}
<h2>Path KL</h2>
<p>{html.escape(headline(report))}</p>
{_paragraphs(report["summary"])}
<h2>Certificate of the least path KL, on the test rows</h2><pre>{html.escape(report["certificate_text"])}</pre>
<h2>Samplers</h2>
<table><thead><tr>{"".join(f"<th>{name}</th>" for name in COLUMNS)}</tr></thead>
<tbody>{rows}<tr class="first"><td>train rows (noise floor)</td>{floor}</tr></tbody></table>
"""


def _notes(report):
    return "".join(f'<p class="small">{html.escape(note)}</p>' for note in report["notes"])


def _training(sentences, found):
    """The section on the training: sentences after the first, which is the name of the run, and pictures."""
    drawn = "".join(_picture(found[name], caption) for name, caption in TRAINING if name in found)
    return f"<h2>Training</h2>{_paragraphs(sentences[1:])}{drawn}"


def _pictures(named, folders):
    """The pictures that are in one of the folders."""
    found = [(folder / name, caption) for name, caption in named for folder in folders if (folder / name).exists()]
    return "".join(_picture(path, caption) for path, caption in found)


def _paragraphs(lines):
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _table_row(row, previous):
    new_block = previous is not None and previous["n_steps"] != row["n_steps"]
    inner = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row))
    return f"<tr{' class=first' if new_block else ''}>{inner}</tr>"


def _picture(path, caption):
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    alt = html.escape(caption)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
