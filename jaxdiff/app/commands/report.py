"""jaxdiff report: rebuild the page of a run, also of one that is still training."""

import pathlib

from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    about = "rebuild the page of a run from its files, also while it trains"
    parser = commands.add_parser("report", help=about, description=about, formatter_class=Defaults)
    parser.add_argument("run", type=pathlib.Path, help="run folder")
    parser.set_defaults(command=run)


def run(options):
    """Write report.html from the files that are there."""
    from jaxdiff import files
    from jaxdiff.app import page, plots
    from jaxdiff.app.run_folder import RunError
    from jaxdiff.app.training_folder import FOLDER, read_metrics
    from jaxdiff.app.watching import NAMES, newest

    folder = options.run
    metrics, report = read_metrics(folder), _report(folder)
    if not metrics and report is None:
        raise RunError(f"{folder} has no metrics.jsonl and no report.json: make them with jaxdiff train.")
    with files.draft_folder(folder, "report.html") as place:
        training = None
        if metrics:
            plots.training(place / "training.png", metrics)
            drawn = {name: newest(folder / FOLDER, name) for name in NAMES}
            found = {"training.png": place / "training.png"}
            found |= {f"{name.rstrip('_')}.png": path for name, path in drawn.items() if path is not None}
            training = _said(folder, metrics), found
        page.write_page(place / "report.html", report, pictures=folder, training=training)
        files.put(place / "report.html", folder / "report.html")
    print(f"page: {folder / 'report.html'}")


def _report(folder):
    """The contents of report.json; None if there is no such file."""
    from jaxdiff.app.run_folder import RunError, read_json
    from jaxdiff.files import UNREADABLE, brief

    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        return read_json(path)
    except UNREADABLE as error:
        raise RunError(f"{path} is damaged ({brief(error)}): make it again with jaxdiff certify {folder}.") from error


def _said(folder, metrics):
    """The name of the run, and a sentence on how far its training is."""
    from jaxdiff.app.run_folder import read_json
    from jaxdiff.app.training_folder import FOLDER
    from jaxdiff.files import UNREADABLE

    last, steps = metrics[-1], None
    try:
        steps = read_json(folder / FOLDER / "settings.json")["steps"]
    except (OSError, KeyError, TypeError, *UNREADABLE):
        pass
    known = [row["held_out_loss"] for row in metrics if row.get("held_out_loss") is not None]
    of = "" if steps is None else f" of {steps:,}"
    speed = last.get("steps_per_second")
    said = f"The last measurement is at step {last['step']:,}{of}"
    said += "" if speed is None else f", at {speed:,.3g} steps a second"
    said += f". The held-out loss is {known[-1]:.4g}, and {min(known):.4g} at best." if known else "."
    return [folder.resolve().name, said]
