"""Two-sample comparisons of samples with the noised test rows: sliced W2, energy distance, accuracy of a classifier."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.app.comparison_subject import Subject
from jaxdiff.intervals import row_ids
from jaxdiff.metrics import Estimate, classifier_accuracy, energy_distance, sliced_w2
from jaxdiff.processes import forward
from jaxdiff.progress import bar
from jaxdiff.sampling.sample import sample
from jaxdiff.types import Sampler

MEASURES = ("sliced_w2", "accuracy", "energy_distance")
BATCHES = 4  # batches of as many samples as test rows; their spread gives the standard error, and each costs a run


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """Compares batches of samples with the noised test rows of a subject."""

    subject: Subject
    key: jax.Array

    def __call__(self, batches, clean=None):
        """The three MEASURES against the noised test rows: means over batches, with standard errors.

        clean: the rows of each batch before noise was added to them, if the batches are rows of data; otherwise None.
        Rows of data that were equal before the noise count as copies. Samples of a model never do.
        """
        key_noise, key_slices = jax.random.split(jax.random.fold_in(self.key, 0))
        rows = jnp.asarray(self.subject.test_rows)
        test = np.asarray(forward(rows, self.subject.early_stop, jax.random.normal(key_noise, rows.shape, rows.dtype)))
        found = {name: [] for name in MEASURES}
        for i, batch in enumerate(batches):
            own = self.subject.test_rows[: len(batch)]
            ids = row_ids(own if clean is None else np.concatenate([clean[i], own]))
            ids = np.concatenate([-1 - np.arange(len(batch)), ids]) if clean is None else ids
            found["sliced_w2"].append(sliced_w2(batch, test, key_slices).value)
            found["accuracy"].append(classifier_accuracy(batch, test[: len(batch)], seed=i, row_ids=ids).value)
            found["energy_distance"].append(energy_distance(batch, test).value)
        return {name: _mean(values)._asdict() for name, values in found.items()}


def _mean(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), float(error))


def batch(subject, sampler: Sampler, key):
    """As many samples as there are test rows, in the coordinates of the rows, and the seconds of the run."""
    key_start, key_run = jax.random.split(key)
    x = jax.random.normal(key_start, subject.test_rows.shape, jnp.float32)  # N(0, I) is the same in any coordinates
    started = time.perf_counter()
    x = np.asarray(jax.block_until_ready(sample(sampler, x, key=key_run)))
    seconds = time.perf_counter() - started
    return x if subject.in_axes is None else (x @ subject.in_axes[1].T).astype(x.dtype), seconds


def batches_of(subject, sampler: Sampler, key):
    """BATCHES batches of samples, and the seconds of each; the same starts for every sampler."""
    return zip(*(batch(subject, sampler, jax.random.fold_in(key, 100 + i)) for i in range(BATCHES)), strict=True)


def noise_floor(subject: Subject, key, *, progress=False):
    """The two-sample numbers of train rows, in disjoint batches of as many rows as test rows."""
    judge, n = Judge(subject, key), len(subject.test_rows)
    z = jax.random.normal(jax.random.fold_in(key, 1), subject.train_rows.shape, jnp.float32)
    rows = np.asarray(forward(jnp.asarray(subject.train_rows), subject.early_stop, z))
    firsts = range(0, max(len(rows) - n, 0) + 1, n)
    batches = [rows[first : first + n] for first in firsts]
    clean = [subject.train_rows[first : first + n] for first in firsts]
    return judge(bar(batches, "noise floor", enabled=progress), clean)
