"""jaxdiff certify: measure the samplers of a run on its test rows, and write the report."""

import pathlib

from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "certify", help="measure the samplers of a run on its test rows, and write the report", formatter_class=Defaults
    )
    parser.add_argument("run", type=pathlib.Path, help="run folder")
    parser.add_argument("--confidence", type=float, default=0.95, help="confidence level of the intervals")
    parser.add_argument("--network", metavar="FILE.py:NAME", help="the function of the run's own network, if it moved")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(command=run)


def run(options):
    """Measure the run, and write and print the report."""
    from jaxdiff import files
    from jaxdiff.app import page, plots, report, run_folder
    from jaxdiff.app.comparison import certified
    from jaxdiff.app.saving import writing

    run = run_folder.load(options.run, network=options.network)
    plan = run_folder.load_plan(run)
    held_out = run_folder.measured(run, "held_out")
    how = {"grid": plan["grid"], "basis": held_out.basis, "guidance": plan["guidance"]}
    test = run_folder.measure(run, "test", **how, progress=True)
    record = certified(run, plan, held_out, test, confidence=options.confidence, progress=True)
    with writing(run, "report.json", plan=plan) as drafts:
        run_folder.keep(run, "test", test, into=drafts.folder)
        files.write_json(drafts.folder / "report.json", record)
        plots.quality(drafts.folder / "quality.png", record["quality"], record["noise_floor"])
        page.write_page(drafts.folder / "report.html", record, pictures=run.folder)
    if options.json:
        print(files.to_json(record), end="")
        return
    print(report.quality_table(record))
    print("\n".join(record["lead"]), end="\n\n")
    print(record["certificate_w2_text"], end="\n\n")
    print(record["certificate_text"])
    print(report.text_table(record))
    print(report.headline(record))
    print("\n".join(record["summary"]))
    print(f"page: {run.folder / 'report.html'}")
