"""The checkpoints of a training: written by a thread, complete or absent, the last ones and the best one kept."""

import json
import math
import operator
import os
import pathlib
import re
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.files import clear, draft_folder, put, to_json
from jaxdiff.training.checkpoints.leaves import Leaf, difference, host_copy, leaves_of, placed, start_copies
from jaxdiff.training.checkpoints.orbax_files import CHECKSUM, checkpointing, checksum

DRAFT = "checkpoint"  # checkpoints are written in hidden folders .checkpoint-XXXXXXXX
NAME = re.compile(r"step_(\d{9,})")
ARRAYS, RECORD = "arrays", "record.json"  # Orbax's folder, and the step, the loss, the leaves and the caller's record


class Checkpoints:
    """The checkpoints of one training in a folder. Each is a folder `step_NNNNNNNNN`, with a checksum of its files.

    A checkpoint is written as a draft and renamed when all its files are there. A killed process therefore leaves at
    most a hidden draft, which the next `Checkpoints` of that folder removes. One process at a time may save. A
    program of several processes (jax.distributed) cannot use this class: `save` and `restore` raise there.

    Args:
      folder: holds the checkpoints; made by the first save.
      keep: how many of the last checkpoints to keep, besides the one of least held-out loss.

    Raises:
      ValueError: keep is less than 1.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 3) -> None:
        """Remove the unfinished checkpoints of a process that was killed."""
        if keep < 1:
            raise ValueError(f"keep must be at least 1, the last checkpoint: keep = {keep}.")
        self.folder, self.keep = pathlib.Path(folder), keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        clear(self.folder, (DRAFT,))

    def __enter__(self) -> "Checkpoints":
        """These checkpoints; at the end of the block the last save is complete."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the last save."""
        self.close()

    def save(
        self, step: int, state: Any, *, held_out_loss: float = math.nan, about: dict[str, Any] | None = None
    ) -> None:
        """Copy a state to the host, and write the copy in a thread.

        The save before is waited for first. The arrays of the state may be donated or overwritten afterwards.

        Args:
          step: the optimiser steps so far. A checkpoint of the same step is replaced.
          state: a pytree of JAX or NumPy arrays, typed JAX keys and numbers. This process must hold all of each array.
          held_out_loss: chooses the best checkpoint; NaN for an unknown loss.
          about: JSON data, such as the configuration.

        Raises:
          ValueError: the program has several processes, the step is negative, a leaf is no array or number, or `about`
            has a number that is not finite.
          OSError: the save before could not be written. Earlier checkpoints are intact.
        """
        check_single_process()
        self.wait()
        if (step := operator.index(step)) < 0:
            raise ValueError(f"step must be at least 0: step = {step}.")
        leaves = leaves_of(state)
        loss = float(held_out_loss) if math.isfinite(held_out_loss) else None
        listed = [[leaf.name, list(leaf.shape), leaf.dtype] for leaf, _ in leaves]
        record = to_json({"step": step, "held_out_loss": loss, "about": about or {}, "leaves": listed})
        start_copies(value for _, value in leaves)
        arrays = {_place(i): copy for i, (_, value) in enumerate(leaves) if (copy := host_copy(value)).size}
        self._thread = threading.Thread(target=self._write, args=(step, arrays, record), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last save is on disk.

        Raises:
          OSError: the save could not be written. Earlier checkpoints are intact.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for the last save, as `wait` does. Call it before the program ends."""
        self.wait()

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, increasing."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(name[1]) for path in found if (name := NAME.fullmatch(path.name)))

    def best(self) -> int | None:
        """The step of least held-out loss among the checkpoints; the first of equals; None if no loss is known."""
        losses = [(loss, step) for step in self.steps() if (loss := self._loss(step)) is not None]
        return min(losses, default=(None, None))[1]

    def about(self, step: int) -> dict[str, Any]:
        """The record that was saved with a step.

        Raises:
          ValueError: there is no such checkpoint, or it is damaged.
        """
        self._check(step, lambda one: self._damage(one))
        return self._record(step)["about"]

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any]:
        """The step and the state of a checkpoint; the last one by default.

        Args:
          like: a state of the same tree and shapes. Each leaf is restored with the dtype and the sharding it has here.
          step: one of `steps`.

        Raises:
          ValueError: the program has several processes; or there is no such checkpoint, it is damaged, or it belongs to
            another state. The message names the first difference and the nearest good checkpoint.
          OSError: the files cannot be read, or the last save could not be written.
        """
        check_single_process()
        self.wait()
        steps = self.steps()
        step = step if step is not None or not steps else steps[-1]
        leaves = leaves_of(like)
        wanted = [leaf for leaf, _ in leaves]
        step = self._check(step, lambda one: self._damage(one) or difference(self._leaves(one), wanted))
        saved = self._leaves(step)
        empty = [np.empty(*_stored(leaf, value)) for leaf, (_, value) in zip(saved, leaves, strict=True)]
        place = self._path(step) / ARRAYS
        of_orbax = {_place(i): array for i, array in enumerate(empty) if array.size}
        read = checkpointing(lambda orbax: orbax.restore(place.absolute(), of_orbax), place) if of_orbax else {}
        arrays = [read.get(_place(i), array) for i, array in enumerate(empty)]
        values = [placed(array, value) for array, (_, value) in zip(arrays, leaves, strict=True)]
        return step, jax.tree.unflatten(jax.tree.structure(like), values)

    def _write(self, step, arrays, record):
        """Write a checkpoint, then remove those that are no longer kept. Runs in the thread."""
        try:
            with draft_folder(self.folder, DRAFT) as place:
                draft = place / self._path(step).name
                draft.mkdir()
                if arrays:
                    path = (draft / ARRAYS).absolute()
                    checkpointing(lambda orbax: orbax.save(path, arrays), draft / ARRAYS, in_thread=True)
                (draft / RECORD).write_text(record, encoding="utf-8")
                (draft / CHECKSUM).write_text(checksum(draft), encoding="utf-8")
                put(draft, self._path(step))
                self._prune(step, place)
        except BaseException as error:  # `wait` raises it in the caller's thread
            self._error = error

    def _prune(self, step, place):
        """Move the checkpoints that are not kept into a draft folder, which is removed."""
        steps = self.steps()
        for old in set(steps) - {*steps[-self.keep :], step, self.best()}:
            self._path(old).rename(place / f"old-{old}")

    def _path(self, step):
        return self.folder / f"step_{step:09d}"

    def _record(self, step):
        return json.loads((self._path(step) / RECORD).read_text(encoding="utf-8"))

    def _leaves(self, step):
        return [Leaf(name, tuple(shape), dtype) for name, shape, dtype in self._record(step)["leaves"]]

    def _loss(self, step):
        """The held-out loss of a checkpoint; None if it is unknown or the record is damaged."""
        try:
            return self._record(step)["held_out_loss"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _damage(self, step):
        """A description of the damage to the files of a checkpoint; None if they are as they were written."""
        try:
            written = (self._path(step) / CHECKSUM).read_bytes()
        except FileNotFoundError:
            return f"its file {CHECKSUM} is missing"
        return None if written == checksum(self._path(step)).encode() else "its files are not those that were written"

    def _check(self, step: int | None, fault: Callable[[int], str | None]) -> int:
        """The step; ValueError if `fault` finds something in that checkpoint. The nearest one without is offered."""
        steps = self.steps()
        if step not in steps or step is None:
            there = f"those of steps {', '.join(map(str, steps))} are there" if steps else "start the training without"
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise ValueError(f"{self.folder} holds {what}: {there}.")
        if (found := fault(step)) is None:
            return step
        others = [*(one for one in reversed(steps) if one < step), *(one for one in steps if one > step)]
        good = next((one for one in others if fault(one) is None), None)
        offer = f"Checkpoint {good} is good: use step={good}."
        offer = "No other checkpoint there is usable." if good is None else offer
        raise ValueError(
            f"checkpoint {step} in {self.folder} cannot be used, because {found}. {offer} Or leave resume= out."
        )


def check_single_process() -> None:
    """Raise ValueError where the program has several processes: they would write the same folder at the same time."""
    if (count := jax.process_count()) > 1:
        raise ValueError(
            f"Checkpoints is for a program of one process, and this one has {count}: train in one process, or give "
            "checkpoints= an object of your own with the methods save, steps, about and restore."
        )


def _place(i):
    """The name of leaf i in Orbax's folder."""
    return f"{i:06d}"


def _stored(leaf, value):
    """The shape and dtype of a leaf's array in the files: of its data, if the leaf is a typed key."""
    if leaf.dtype.startswith("key<"):
        data = jax.eval_shape(jax.random.key_data, value)
        return data.shape, data.dtype
    return leaf.shape, jnp.dtype(leaf.dtype)
