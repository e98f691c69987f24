"""How much time does a step of training.fit take, compared with a bare loop over the same network?

On the digits, with four networks. Each round times a number of steps of `training.fit`, the whole of it: its blocks of
steps, its checks of the loss, its history. Then it times as many steps of bare loops, so that a slow phase of the
machine slows all of them. A bare loop calls one compiled function for each step, which takes over the memory of its
arguments.

- same work: the step gathers a random batch, draws times and noise, computes `losses.denoising` and its gradient,
  clips the gradient by its global norm, makes an AdamW update with the schedule of `fit`, and updates the average of
  the parameters. This is the work of a step of `fit`.
- less work: the same without clipping and without the average.

`ratio` is the median over the rounds of the time of `fit` over that of the loop with the same work, `spread` its
interquartile range; `over_less` is the ratio to the loop with less work. Neither the compilation nor held-out rows are
part of the times: `fit` takes about a tenth longer with held-out rows, by choice. The record has the load of the
machine before the study. Where that exceeds the cores, other work took turns with the study: the ratios still compare
neighbours in time, but `spread` is wide and the milliseconds are too many.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.harness import drawing, studies
from jaxdiff.app import plots
from jaxdiff.training import losses
from jaxdiff.training.fit import fit
from jaxdiff.training.networks import DiT, ResidualMLP, UNet, parameters
from jaxdiff.training.validation_loss import CHECKS

NAME = "training_step"
QUESTION = "How much time does a step of training.fit take, compared with a bare loop over the same network?"
AT_MOST = 1.05
WARM = 4  # rounds that are left out: `fit` begins with short blocks of steps
LEARNING_RATE, WEIGHT_DECAY, EMA_DECAY = 2e-3, 1e-2, 0.999
COLUMNS = ("network", "parameters", "batch", "rounds", "fit_ms", "bare_ms", "less_ms", "ratio", "spread", "over_less")


class Case(NamedTuple):
    """A network, the number of rows in a batch, and the steps of a round."""

    name: str
    network: nnx.Module
    images: bool
    batch: int
    steps: int


def cases(quick):
    """Two residual MLPs on rows of 64 pixels, a U-Net and a DiT on images of 8 x 8."""
    share = 8 if quick else 1
    yield Case("ResidualMLP 192x3", ResidualMLP(64, rngs=nnx.Rngs(0)), False, 256, 160 // share)
    yield Case("ResidualMLP 512x4", ResidualMLP(64, width=512, depth=4, rngs=nnx.Rngs(0)), False, 256, 16 // share)
    if not quick:
        yield Case("U-Net", UNet((8, 8, 1), rngs=nnx.Rngs(0)), True, 64, 4)
    yield Case("DiT", DiT((8, 8, 1), rngs=nnx.Rngs(0)), True, 64, 8 // share)


def digits():
    """(1797, 8, 8, 1): scikit-learn's digits, with pixels from 0 to 1."""
    from sklearn.datasets import load_digits

    return (load_digits().images / 16).astype(np.float32)[..., None]


class BareLoop:
    """A training loop as one writes it with Optax: a compiled step, called from Python.

    Args:
      case: the network and its batch.
      data: (n, *event) rows.
      steps: of the whole training, for the schedule of the learning rate.
      same: whether the gradient is clipped and the parameters are averaged, as in `fit`.
    """

    def __init__(self, case, data, steps, same):
        """Compile the step."""
        graph, params, others = nnx.split(case.network, nnx.Param, ...)
        schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, max(1, steps // 20), steps)
        optimiser = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
        if same:
            optimiser = optax.chain(optax.clip_by_global_norm(float(np.sqrt(data[0].size))), optimiser)

        def step(params, moments, average, data, key, index):
            key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
            batch = data[jax.random.randint(key_batch, (case.batch,), 0, len(data))]
            loss = lambda params: losses.denoising(nnx.merge(graph, params, others), batch, key_loss)
            value, grads = jax.value_and_grad(loss)(params)
            updates, moments = optimiser.update(grads, moments, params)
            params = optax.apply_updates(params, updates)
            if same:
                decay = jnp.minimum(EMA_DECAY, (1 + index) / (10 + index))
                average = optax.incremental_update(params, average, 1 - decay)
            return params, moments, average, value

        self.step = jax.jit(step, donate_argnums=(0, 1, 2))
        self.data, self.key, self.index = jnp.asarray(data), jax.random.key(0), 0
        copied = lambda tree: jax.tree.map(jnp.copy, tree)
        self.state = copied(params), optimiser.init(params), copied(params) if same else ()
        self.seconds(1)

    def seconds(self, steps):
        """The seconds of some steps a step."""
        began = time.perf_counter()
        for _ in range(steps):
            *self.state, value = self.step(*self.state, self.data, self.key, np.int32(self.index))
            self.index += 1
        jax.block_until_ready((self.state, value))
        return (time.perf_counter() - began) / steps


def timed(case, data):
    """Seconds (rounds, 3) of a step of `fit`, of the loop with the same work, and of the loop with less work."""
    steps, rounds = case.steps * CHECKS, []
    loops = [BareLoop(case, data, steps, same) for same in (True, False)]
    began = [0.0]

    def after_a_round(measured, network):
        took = (time.perf_counter() - began[0]) / case.steps
        rounds.append([took, *(loop.seconds(case.steps) for loop in loops)])
        began[0] = time.perf_counter()

    options = {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "ema_decay": EMA_DECAY}
    fit(
        case.network,
        data,
        jax.random.key(0),
        steps=steps,
        batch_size=case.batch,
        on_measure=after_a_round,
        **options,
    )
    return np.array(rounds[WARM:])


def rows(quick, repeats):
    """A row for every network."""
    images = digits()
    return [row_of(case, timed(case, images if case.images else images.reshape(-1, 64))) for case in cases(quick)]


def row_of(case, seconds):
    """The row of a case, from its seconds (rounds, 3)."""
    of_fit, bare, less = np.median(seconds, axis=0).tolist()
    low, ratio, high = np.percentile(seconds[:, 0] / seconds[:, 1], [25, 50, 75]).tolist()
    return {
        "network": case.name,
        "parameters": parameters(case.network),
        "batch": case.batch,
        "steps": case.steps,
        "rounds": len(seconds),
        "fit_ms": 1e3 * of_fit,
        "bare_ms": 1e3 * bare,
        "less_ms": 1e3 * less,
        "ratio": ratio,
        "spread": high - low,
        "over_less": float(np.median(seconds[:, 0] / seconds[:, 2])),
    }


def verdict(rows):
    """The number of networks whose step takes at most AT_MOST times the bare loop's, and every ratio."""
    met = sum(row["ratio"] <= AT_MOST for row in rows)
    said = lambda name: ", ".join(f"{row['network']} {row[name]:.3f}" for row in rows)
    return (
        f"A step of fit takes at most {AT_MOST} times as long as that of a bare loop with the same work for {met} of "
        f"{len(rows)} networks ({said('ratio')}). Over a loop without clipping and average: {said('over_less')}."
    )


def draw(rows, path):
    """Bars: the milliseconds of a step of fit and of the two loops, each over those of the loop with the same work."""
    figure = plots.canvas(7.5, 3.6)
    ax = figure.subplots()
    bars = (("training.fit", "fit_ms"), ("bare loop, less work", "less_ms"))
    for i, (label, name) in enumerate(bars):
        heights = [row["ratio"] if name == "fit_ms" else row[name] / row["bare_ms"] for row in rows]
        ax.bar(np.arange(len(rows)) + 0.36 * i - 0.18, heights, 0.34, label=label, color=drawing.COLOURS[i])
    ax.axhline(1, color=plots.INK, lw=1, label="bare loop, same work")
    ax.axhline(AT_MOST, color=plots.INK, lw=1, ls=":", label=f"goal, {AT_MOST}")
    ax.set_xticks(range(len(rows)), [f"{row['network']}\n{row['bare_ms']:.3g} ms" for row in rows])
    ax.set_ylabel("time of a step / bare loop")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    return plots.saved(figure, path)


STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, double=False)

if __name__ == "__main__":
    studies.main(STUDY)
