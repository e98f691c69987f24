"""The measurements of a training run, and the best average of the parameters so far."""

import time

import jax
import jax.numpy as jnp
import numpy as np


class History:
    """The measurements of a training run, and the best average of the parameters so far.

    Args:
      network_of: parameters -> the network.
      params: the parameters that training starts from.
      held_out_loss: a HeldOutLoss, or None.
      layout: where the arrays lie.
      on_measure: called with the dict and the network of every measurement, or None.
      advice: the end of the message about a loss that is not finite.
    """

    def __init__(self, network_of, params, held_out_loss, layout, on_measure, advice):
        """Compile the measurement."""
        self.network_of, self.held_out_loss, self.layout = network_of, held_out_loss, layout
        self.on_measure, self.advice = on_measure, advice
        self.best, self.least, self.rows = params, np.inf, []
        self.measure = None
        if held_out_loss is not None:
            self.measure = held_out_loss.compiled(network_of, layout.whole(params), layout.place)
        self.began, self.before = time.perf_counter(), 0

    def add(self, average, losses, done):
        """Measure the average after `done` steps; keep it as the best one if its held-out loss is the least so far.

        losses: the training losses since the last measurement.
        """
        average = self.layout.whole(average)
        train_loss = float(np.mean(losses))
        held_out_loss = np.nan if self.measure is None else self.measure(average)
        if not np.isfinite(train_loss if self.measure is None else train_loss + held_out_loss):
            raise ValueError(
                f"the loss must be finite: at step {done} it is {train_loss} on training and {held_out_loss} on "
                f"held-out rows; {self.advice}"
            )
        self.rows.append({"step": done, "train_loss": train_loss, "held_out_loss": held_out_loss})
        if self.measure is None or held_out_loss < self.least:
            self.best, self.least = jax.tree.map(jnp.copy, average), held_out_loss
        if self.on_measure is not None:
            seconds = time.perf_counter() - self.began
            speed = {"seconds": seconds, "steps_per_second": (done - self.before) / seconds}
            self.on_measure(self.rows[-1] | speed, self.network_of(jax.tree.map(jnp.copy, average)))

    def packed(self, most):
        """The history as arrays of shapes that do not change, for a checkpoint; most: the number of measurements."""
        rows = np.full((most, 3), np.nan)
        for row, measured in zip(rows, self.rows, strict=False):
            row[:] = measured["step"], measured["train_loss"], measured["held_out_loss"]
        return {"best": self.best, "least": np.array([self.least], np.float64), "rows": rows}

    def unpack(self, packed, done):
        """Go on from the history of a checkpoint."""
        self.best, self.least = self.layout.place(packed["best"]), float(packed["least"][0])
        names = "step", "train_loss", "held_out_loss"
        self.rows = [
            {"step": int(row[0])} | dict(zip(names[1:], map(float, row[1:]), strict=True))
            for row in np.asarray(packed["rows"])
            if not np.isnan(row[0])
        ]
        self.before = done
