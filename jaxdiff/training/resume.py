"""The state of a training run in checkpoints, and the check that a resumed run is the same run."""

import time
from typing import Any

import jax
import numpy as np

from jaxdiff.training import loop
from jaxdiff.training.checkpoints.steps import Checkpoints, check_single_process


class Saving:
    """Saves the state of a run, and reads it back.

    Args:
      checkpoints: a Checkpoints object, or None.
      about: what identifies the run, as JSON; see `about_run`.
      key: the key of `fit`, which the message about a loss that is not finite names.
      most: the number of measurements of the whole run.
      layout: where the arrays lie.
      advice: the end of the message about a loss that is not finite.
    """

    def __init__(self, checkpoints, about, key, most, layout, advice):
        """Nothing is saved yet."""
        self.checkpoints, self.about, self.key, self.most = checkpoints, about, key, most
        self.layout, self.advice, self.saved, self.last = layout, advice, time.perf_counter(), None

    def is_due(self):
        """Whether SAVE_SECONDS have passed since the last checkpoint. Several processes save at every measurement."""
        if self.checkpoints is None:
            return False
        return jax.process_count() > 1 or time.perf_counter() - self.saved >= loop.SAVE_SECONDS

    def save(self, done, carried, history):
        """Write a checkpoint of the state after `done` steps."""
        if self.checkpoints is None or self.last == done:
            return
        loss = history.rows[-1]["held_out_loss"] if history.rows else np.nan
        self.checkpoints.save(done, self._packed(carried, history), held_out_loss=loss, about=self.about)
        self.saved, self.last = time.perf_counter(), done

    def start(self, carried, history, resume):
        """The number of steps done, and the state to start from: the given one, or that of the last checkpoint.

        Raises:
          ValueError: there are checkpoints, and they are not to be resumed; resume lacks checkpoints; or `Checkpoints`
            are used by several processes.
        """
        if isinstance(self.checkpoints, Checkpoints):
            check_single_process()
        kept = self.checkpoints.steps() if self.checkpoints is not None else []
        if resume and self.checkpoints is None:
            raise ValueError("resume=True needs checkpoints=: give the object that saved them.")
        if kept and not resume:
            raise ValueError(
                f"there are checkpoints of an earlier run, the last of step {kept[-1]}: give resume=True to go on, or "
                "another folder to train anew."
            )
        return self.restore(carried, history) if kept else (0, carried)

    def restore(self, carried, history):
        """The number of steps done, the state after them; the history is set to that of the checkpoint.

        Raises:
          ValueError: the checkpoint belongs to another run. The message names the first difference.
        """
        step = self.checkpoints.steps()[-1]
        difference = first_difference(self.checkpoints.about(step), self.about)
        if difference:
            raise ValueError(
                f"the checkpoint of step {step} belongs to another run: {difference}. Give the same arguments to "
                "resume, or another folder to train anew."
            )
        step, packed = self.checkpoints.restore(self._packed(carried, history), step)
        best = jax.tree.unflatten(jax.tree.structure(history.best), packed["history"]["best"])
        history.unpack(packed["history"] | {"best": best}, step)
        self.last = step
        leaves = [leaf for name in carried[0]._fields for leaf in packed["state"].get(name, [])]
        state = jax.tree.unflatten(jax.tree.structure(carried[0]), leaves)
        return step, (self.layout.state(state), self.layout.place(packed["losses"]))

    def _packed(self, carried, history):
        state = dict(zip(carried[0]._fields, carried[0], strict=True))
        state = {name: jax.tree.leaves(part) for name, part in state.items() if jax.tree.leaves(part)}
        packed = history.packed(self.most) | {"best": jax.tree.leaves(history.best)}
        return {"state": state, "losses": carried[1], "history": packed, "key": key_words(self.key)}

    def check(self, losses, first):
        """Raise Exploded if a loss of the steps first, first + 1, ... is not finite."""
        bad = np.flatnonzero(~np.isfinite(losses))
        if not len(bad):
            return
        step = first + int(bad[0])
        kept = self.checkpoints.steps() if self.checkpoints is not None else []
        last = f" The last good checkpoint is that of step {kept[-1]}." if kept else ""
        raise loop.Exploded(
            f"the training loss is {losses[bad[0]]} at step {step} of key {key_words(self.key).tolist()}, whose rows "
            f"jaxdiff.training.batches.batch_rows(key, {step}, n, batch_size) lists: {self.advice}{last}",
            step,
        )


def key_words(key: Any) -> np.ndarray:
    """The words of a JAX key, new style or old."""
    return np.asarray(jax.random.key_data(key) if jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key) else key)


def about_run(settings: dict[str, Any], data: dict[str, Any], params: Any, key: Any) -> dict[str, Any]:
    """What a resumed run must have in common with the checkpoint's, as JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shapes = {jax.tree_util.keystr(place): f"{leaf.dtype}{list(leaf.shape)}" for place, leaf in leaves}
    named = {name: value if isinstance(value, str) else plain(value) for name, value in settings.items()}
    return {"settings": named, "data": data, "network": shapes, "key": key_words(key).tolist()}


def plain(value: Any) -> Any:
    """A number, None or a string as JSON; a function by its name; another object by its type."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.number) or (np.ndim(value) == 0 and hasattr(value, "dtype")):
        return float(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """The first place in which two JSON values differ, with both values; "" if they agree."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return "" if old == new else f"{name} was {old}, is {new}"
    for part in [*new, *(old.keys() - new.keys())]:
        found = first_difference(old.get(part), new.get(part), f"{name}.{part}".lstrip("."))
        if found:
            return found
    return ""
