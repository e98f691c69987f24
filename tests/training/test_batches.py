"""Batches: labels and their null class, rows fed by the host, fingerprints; how networks are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_networks import Labelled, Plain

from jaxdiff import train
from jaxdiff.training import batches

pytestmark = pytest.mark.loose_promotion
EVENT = (2, 2, 1)
LABELS = np.arange(90) % 3
IMAGES = (np.random.default_rng(0).normal(0, 0.1, (90, *EVENT)) + LABELS[:, None, None, None]).astype(np.float32)


def labelled(n_classes=3):
    return Labelled(EVENT, n_classes, nnx.Rngs(0))


def test_labels_reach_the_network_and_the_null_class_learns_the_mixture(key):
    options = {"steps": 1500, "batch_size": 64, "learning_rate": 3e-2, "weight": "uniform", "weight_decay": 0.0}
    fitted = train.fit(labelled(), IMAGES, key, labels=LABELS, drop_labels=0.3, **options)
    # At one slope a for all times the best image of a class of mean m is (1 - a E alpha) m. The null class has mean 1.
    means = np.asarray(fitted.network.means[...]).mean((1, 2, 3))
    np.testing.assert_allclose(means / means[2], [0, 0.5, 1, 0.5], atol=0.05)
    never = train.fit(labelled(), IMAGES, key, labels=LABELS, drop_labels=0.0, **(options | {"steps": 50}))
    assert np.all(np.asarray(never.network.means[...])[3] == 0)
    without = train.fit(labelled(), IMAGES, key, **(options | {"steps": 50}))
    assert np.all(np.asarray(without.network.means[...])[:3] == 0)


def test_labels_are_dropped_with_their_chance(key):
    gone = np.asarray(batches.dropped(key, jnp.zeros(10_000, jnp.int32), 0.2, 7))
    assert set(gone) == {0, 7}
    assert abs(np.mean(gone == 7) - 0.2) < 5 * np.sqrt(0.16 / 10_000)


def test_held_out_labels_change_the_held_out_loss(key):
    options = {"labels": LABELS, "held_out": IMAGES, "steps": 60, "learning_rate": 1e-1, "drop_labels": 0.0}
    own, wrong = (
        train.fit(labelled(), IMAGES, key, held_out_labels=given, **options).history[-1]["held_out_loss"]
        for given in (LABELS, 2 - LABELS)
    )
    assert own < wrong


@pytest.mark.parametrize(
    ("network", "given", "says"),
    [
        (Plain(4, nnx.Rngs(0)), {"labels": LABELS}, "network has no classes"),
        (labelled(2), {"labels": LABELS}, "labels has 30 values outside 0, ..., 1, first 2 at row 2"),
        (labelled(), {"labels": LABELS[:5]}, "one whole number for each of the 90 rows"),
        (labelled(), {"labels": LABELS.astype(float)}, "one whole number for each of the 90 rows"),
        (labelled(), {"labels": LABELS, "held_out": IMAGES}, "without held_out_labels"),
        (labelled(), {"labels": LABELS, "held_out_labels": LABELS}, "without held_out: give"),
        (labelled(), {"held_out": IMAGES[:, :1]}, "held_out has"),
    ],
)
def test_labels_and_rows_that_do_not_fit_are_refused(key, network, given, says):
    with pytest.raises(ValueError, match=says):
        train.fit(network, IMAGES, key, steps=1, **given)


class WithStatistics(nnx.Module):
    def __init__(self, part):
        self.part = part

    def __call__(self, x, t):
        return self.part(x)


@pytest.mark.parametrize(
    ("part", "says"),
    [(nnx.BatchNorm(1, rngs=nnx.Rngs(0)), "BatchNorm"), (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "Dropout of rate 0.5")],
)
def test_networks_with_state_that_training_does_not_update_are_refused(key, part, says):
    with pytest.raises(ValueError, match=says):
        train.fit(WithStatistics(part), IMAGES, key, steps=1)


class Source:
    """Rows behind an index, which count how often they are read."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype, self.reads = rows, rows.shape, rows.dtype, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices):
        self.reads += 1
        return self.rows[indices]


def test_rows_fed_by_the_host_train_as_rows_on_the_device(key, monkeypatch):
    options = {"labels": LABELS, "steps": 30, "batch_size": 16, "learning_rate": 1e-2}
    resident = train.fit(labelled(), IMAGES, key, **options)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 10)
    source = Source(IMAGES)
    streamed = train.fit(labelled(), source, key, **options)
    assert 30 <= source.reads <= 30 + 2 + batches.AHEAD
    for one, other in zip(*(jax.tree.leaves(nnx.state(f.network)) for f in (resident, streamed)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_rows_fed_by_the_host_that_are_not_finite_are_counted_and_named(key, monkeypatch, value):
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 10)
    rows = IMAGES.copy()
    rows[70, 1, 0, 0] = rows[70, 1, 1, 0] = rows[81, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"3 values that are not finite, first {value} at row 70 .*\(1, 0, 0\)"):
        batches.Streamed(rows).batch(np.array([81, 3, 70, 5]))
    with pytest.raises(ValueError, match=r"of a batch have .* values that are not finite, first"):
        train.fit(labelled(), Source(rows), key, labels=LABELS, steps=30, batch_size=16)


def test_the_rows_of_a_batch_are_those_that_training_takes(key):
    rows = np.asarray(batches.batch_rows(key, 5, 90, 16))
    source = batches.Streamed(IMAGES.astype(np.float64))
    np.testing.assert_array_equal(source.batch(rows), IMAGES[rows].astype(np.float64))
    assert not np.array_equal(rows, batches.batch_rows(key, 6, 90, 16))


def test_a_fingerprint_sees_a_changed_value_a_changed_label_and_a_changed_dtype():
    of = lambda rows, labels=None: batches.fingerprint(batches.Resident(rows), labels)
    changed, other = IMAGES.copy(), LABELS.copy()
    changed[50, 0, 0, 0] += 1
    other[7] = 2
    found = [of(IMAGES), of(changed), of(IMAGES, LABELS), of(IMAGES, other), of(IMAGES.astype(np.float64))]
    assert len({str(one) for one in found}) == 5
    assert of(IMAGES) == of(IMAGES.copy())
