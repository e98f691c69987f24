"""Files of a run folder that are put in place together, or not at all."""

import contextlib
import dataclasses
import pathlib

import numpy as np

from jaxdiff.app.records import SPLITS
from jaxdiff.app.run_folder import OF_THE_MODEL, PARTS, RECORDS, RunError, load_plan, read_json
from jaxdiff.files import UNREADABLE, clear, locked, put, room, write_json, written
from jaxdiff.training.checkpoints import save_network


def save(folder, model, dataset, network):
    """Write a trained run: model.json, data.npz, checkpoint/. An older run stays until all three are written.

    Raises:
      WriteError: one cannot be written.
    """
    folder = pathlib.Path(folder)
    record = {"data": dataset.name, "dim": dataset.dim, "constant_columns": dataset.constant}
    parts = {name: getattr(dataset, name) for name in (*SPLITS, "mean", "scale")}
    parts["whole"] = np.zeros(dataset.dim, bool) if dataset.whole is None else dataset.whole
    clear(folder, (*PARTS, *OF_THE_MODEL))
    with room(folder, "model.json") as place:
        save_network(network, place / "checkpoint")
        with written(place / "data.npz") as draft, draft.open("wb") as stream:
            np.savez_compressed(stream, **parts)
        write_json(place / "model.json", model | record)
        with locked(folder):
            _replace(folder, place, OF_THE_MODEL)


@dataclasses.dataclass(frozen=True)
class Drafts:
    """Where `writing` wants files, and what it removed to put them in place.

    Attributes:
      folder: a folder for drafts, by the names that they will have.
      removed: the names of older files that were removed; empty until the files are in place.
    """

    folder: pathlib.Path
    removed: list[str]


@contextlib.contextmanager
def writing(run, name, *, plan=None, instead_of=()):
    """A place for what a command makes of a run: all of it is put into the run's folder when the block ends, or none.

    The block may take as long as it wants. Only then, and only while files are renamed, the folder is locked.

    Args:
      run: as `load` returned it.
      name: of the chief file, for messages.
      plan: as `load_plan` returned it, for what depends on the plan.
      instead_of: names of files that are removed when the new ones are put in place.

    Yields:
      Drafts: files written into their folder are put in place, under their names.

    Raises:
      RunError: the folder holds another model or plan than it did when it was read.
      WriteError: a draft cannot be written.
    """
    clear(run.folder, (*PARTS, *OF_THE_MODEL))
    with room(run.folder, name) as place:
        drafts = Drafts(place, [])
        yield drafts
        with locked(run.folder):
            _check_unchanged(run, plan)
            drafts.removed.extend(_replace(run.folder, place, instead_of))


def _check_unchanged(run, plan):
    what = "model"
    try:
        same = read_json(run.folder / "model.json") == run.model
        if same and plan is not None:
            what = "plan"
            same = _comparable(load_plan(run)) == _comparable(plan)
    except (OSError, *UNREADABLE):  # also RunError, which is a ValueError
        same = False
    if not same:
        raise RunError(
            f"the {what} in {run.folder} was replaced while this command ran, and nothing was written: run it again."
        )


def _comparable(plan):
    return plan | {"grid": plan["grid"].tolist()}


def _replace(folder, place, instead_of):
    """Put all that lies in `place` into the folder; returns the names of `instead_of` that were there."""
    names = (path.name for path in place.iterdir() if not path.name.startswith("."))
    names = sorted(names, key=lambda name: (name in RECORDS, name))
    discard(folder, [name for name in RECORDS if name in names])
    removed = discard(folder, instead_of)
    for name in names:
        put(place / name, folder / name)
    return removed


def discard(folder, names):
    """Remove what an older model or plan left in a run folder; returns the names that were there."""
    left = [name for name in names if (folder / name).exists()]
    for name in left:
        (folder / name).unlink()
    return left
