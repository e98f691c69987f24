"""Batches by seed and step: a permutation in each epoch, the same on host and device, and uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.training.epochs import batch_indices, permuted


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 255, 1198])
def test_the_values_of_all_places_are_a_permutation(n):
    values = jax.jit(permuted, static_argnums=2)(jax.random.key(n), jnp.arange(n), n)
    assert sorted(values.tolist()) == list(range(n))


def test_an_epoch_repeats_no_row_and_the_next_has_another_order():
    epochs = [np.concatenate([batch_indices(3, step, 8, 50) for step in range(6 * e, 6 * e + 6)]) for e in (0, 1)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 48
    assert not np.array_equal(*epochs)


def test_a_batch_depends_on_seed_and_step_alone_compiled_or_not():
    compiled = jax.jit(lambda step: batch_indices(5, step, 16, 1000))
    for step in (0, 61, 62, 10**6):
        np.testing.assert_array_equal(compiled(step), batch_indices(jax.random.key(5), step, 16, 1000))
    assert not np.array_equal(batch_indices(5, 0, 16, 1000), batch_indices(6, 0, 16, 1000))


def test_batches_larger_than_the_data_repeat_rows():
    batch = np.asarray(batch_indices(0, 0, 300, 7))
    assert batch.shape == (300,)
    assert set(batch.tolist()) == set(range(7))


def test_every_row_is_as_likely_at_every_place_and_neighbours_are_independent():
    n, seeds = 11, 22_000
    both = jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(2), n)))(jax.random.split(jax.random.key(0), seeds))
    counts = np.zeros((n, n))
    np.add.at(counts, tuple(np.asarray(both).T), 1)
    assert np.trace(counts) == 0
    expected = seeds / (n * (n - 1))
    chi2 = ((counts[~np.eye(n, dtype=bool)] - expected) ** 2 / expected).sum()
    freedom = n * (n - 1) - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(("batch", "n", "message"), [(4, 0, "n = 0"), (4, 2**31, "n = 2147483648"), (0, 4, "= 0")])
def test_sizes_out_of_range_are_refused(batch, n, message):
    with pytest.raises(ValueError, match=message):
        batch_indices(0, 0, batch, n)
