"""Write the files of a command into a run folder: all of them, or none."""

import contextlib
import dataclasses
import pathlib

import numpy as np

from jaxdiff.app.records import SPLITS, check_model
from jaxdiff.app.run_folder import OF_THE_MODEL, PARTS, RECORDS, RunError, load_plan, read_json
from jaxdiff.files import UNREADABLE, clear, draft_folder, locked, put, write_json, written
from jaxdiff.training.checkpoints import save_network

MOST_ROWS, MOST_VALUES = 10_000, 2**26  # train rows that a run folder keeps, and the values in them


def save(folder, model, dataset, network):
    """Write a trained run: model.json, data.npz and checkpoint/. An older run is kept until all three are written.

    data.npz has MOST_ROWS of the train rows at most. The commands need them for axes, pictures and noise floors.

    Raises:
      WriteError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    record = {"data": dataset.name, "dim": dataset.dim, "constant_columns": dataset.constant}
    record |= {"event_shape": list(dataset.event_shape), "train_rows": len(dataset.train)}
    record["pixels"] = None if dataset.pixels is None else dataset.pixels.record()
    kept = kept_rows(dataset)
    parts = {name: getattr(kept, name) for name in SPLITS}
    parts |= {name: np.broadcast_to(getattr(dataset, name), dataset.dim) for name in ("mean", "scale")}
    parts["whole"] = np.zeros(dataset.dim, bool) if dataset.whole is None else dataset.whole
    if kept.labels is not None:
        record["classes"] = list(kept.labels.names)
        parts |= {f"{name}_labels": getattr(kept.labels, name) for name in SPLITS}
    clear(folder, (*PARTS, *OF_THE_MODEL))
    with draft_folder(folder, "model.json") as place:
        save_network(network, place / "checkpoint")
        with written(place / "data.npz") as draft, draft.open("wb") as stream:
            np.savez_compressed(stream, **parts)
        write_json(place / "model.json", model | record)
        with locked(folder):
            _replace(folder, place, OF_THE_MODEL)


def kept_rows(dataset):
    """The data set in rows, with so many of its train rows as a run folder keeps."""
    return dataset.in_rows(max(1, min(MOST_ROWS, MOST_VALUES // dataset.dim)))


@dataclasses.dataclass(frozen=True)
class Drafts:
    """The files of a command before they are moved into the run folder.

    Attributes:
      folder: contains the drafts under their final names.
      removed: names of the older files that were removed; empty until the drafts are moved.
    """

    folder: pathlib.Path
    removed: list[str]


@contextlib.contextmanager
def writing(run, name, *, plan=None, instead_of=()):
    """A folder for the files that a command makes from a run. When the block ends, they are moved into the run folder.

    The run's folder is locked only while the files are renamed, after the block.

    Args:
      run: the result of `load`.
      name: name of the main file, for messages.
      plan: the result of `load_plan`, if the files depend on the plan.
      instead_of: names of files to remove when the new ones are moved.

    Yields:
      Drafts, with the folder to write into.

    Raises:
      RunError: the model or the plan was replaced since it was read. No file is moved then.
      WriteError: a draft cannot be written.
    """
    clear(run.folder, (*PARTS, *OF_THE_MODEL))
    with draft_folder(run.folder, name) as place:
        drafts = Drafts(place, [])
        yield drafts
        with locked(run.folder):
            _check_unchanged(run, plan)
            drafts.removed.extend(_replace(run.folder, place, instead_of))


def _check_unchanged(run, plan):
    what = "model"
    try:
        same = check_model(read_json(run.folder / "model.json")) == run.model
        if same and plan is not None:
            what = "plan"
            same = _comparable(load_plan(run)) == _comparable(plan)
    except (OSError, *UNREADABLE):  # RunError too: it is a ValueError
        same = False
    if not same:
        raise RunError(
            f"the {what} in {run.folder} was replaced while this command ran, and nothing was written: run it again."
        )


def _comparable(plan):
    """A plan whose arrays are lists, so that == compares them."""
    if not isinstance(plan, dict):
        return plan.tolist() if isinstance(plan, np.ndarray) else plan
    return {name: _comparable(value) for name, value in plan.items()}


def _replace(folder, place, instead_of):
    """Move all files of `place` into the folder and remove `instead_of`; returns the names of those that existed."""
    names = (path.name for path in place.iterdir() if not path.name.startswith("."))
    names = sorted(names, key=lambda name: (name in RECORDS, name))
    discard(folder, [name for name in RECORDS if name in names])
    removed = discard(folder, instead_of)
    for name in names:
        put(place / name, folder / name)
    return removed


def discard(folder, names):
    """Remove files of an older model or plan from a run folder; returns the names of those that existed."""
    left = [name for name in names if (folder / name).exists()]
    for name in left:
        (folder / name).unlink()
    return left
