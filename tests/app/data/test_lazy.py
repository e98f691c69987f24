"""Rows that stay in their file: views, statistics by blocks, the split, and a file larger than the memory allowed."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdiff import data
from jaxdiff.app.data import archives, lazy, views
from jaxdiff.app.data.scans import check_finite
from jaxdiff.app.data.views import Rest

ROWS = np.random.default_rng(0).normal(3, 2, (500, 4)).astype(np.float32)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@settings(max_examples=60, deadline=None)
def test_the_rest_is_what_is_not_left_out(case):
    n, left_out = case
    rest = Rest(n, np.array(sorted(left_out), np.int64)[::-1])
    want = [i for i in range(n) if i not in left_out]
    assert len(rest) == len(want)
    assert rest[np.arange(len(want))].tolist() == want


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """A table that is memory-mapped, with a constant column, read in blocks of a few rows."""
    monkeypatch.setattr(archives, "LARGE", 1)
    monkeypatch.setattr(views, "BLOCK_BYTES", 8 * 5 * 7)
    table = np.column_stack([ROWS, np.full(500, 0.1, np.float32)])
    np.save(tmp_path / "x.npy", table)
    return data.load(tmp_path / "x.npy"), data.split(table.astype(np.float64), name="x")


def test_a_mapped_table_is_split_and_standardised_as_one_in_memory(mapped):
    dataset, want = mapped
    assert isinstance(dataset.train, data.View)
    assert isinstance(dataset.train.array, np.memmap)
    assert (dataset.constant, dataset.whole.tolist()) == (want.constant, want.whole.tolist())
    for part in ("train", "held_out", "test"):
        np.testing.assert_allclose(np.asarray(getattr(dataset, part)), getattr(want, part), atol=1e-6)
    np.testing.assert_allclose(dataset.mean, want.mean, rtol=1e-12)
    np.testing.assert_allclose(dataset.scale, want.scale, rtol=1e-12)
    np.testing.assert_allclose(dataset.restore(dataset.test), want.restore(want.test), atol=1e-6)


def test_a_view_is_indexed_as_an_array_is(mapped):
    view = mapped[0].train
    rows = np.asarray(view)
    assert (len(view), view.shape, view.ndim, view.dtype) == (333, (333, 5), 2, np.float32)
    for indices in (3, -1, slice(5, 90, 7), slice(None, None, -1), [0, -1, 0], rows[:, 0] > 0, np.array([[1, 2]])):
        np.testing.assert_array_equal(view[indices], rows[indices])
    np.testing.assert_array_equal(np.concatenate(list(view.blocks())), rows)
    for outside in (333, -334, [0, 400]):
        with pytest.raises(IndexError, match="the view has 333 rows"):
            view[outside]
    with pytest.raises(IndexError, match="whole numbers"):
        view[np.array([0.5])]


def test_moments_by_blocks_are_those_of_all_rows(mapped):
    rows = np.asarray(mapped[0].train, np.float64)
    mean, cov = data.moments(mapped[0].train)
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(cov, np.cov(rows.T), atol=1e-12)


def test_moments_of_channels_are_those_of_all_pixels(monkeypatch):
    monkeypatch.setattr(views, "BLOCK_BYTES", 8 * 24 * 5)
    view = data.load(np.random.default_rng(1).integers(0, 256, (90, 2, 4, 3), dtype=np.uint8)).train
    mean, variance = data.channel_moments(view)
    pixels = np.asarray(view, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, pixels.var(0), rtol=1e-12)


@pytest.mark.parametrize("most", [10, 1000])
@pytest.mark.parametrize("n", [300, 5000])
def test_every_row_lands_in_one_part_whose_size_is_limited(monkeypatch, n, most):
    monkeypatch.setattr(lazy, "PERMUTED", 1000)
    monkeypatch.setattr(lazy, "MOST_ROWS", most)
    train, held_out, test = lazy.parts_of(n, 3, 7)
    every = np.concatenate([train[np.arange(len(train))], held_out, test])
    assert sorted(every) == list(range(n))
    assert max(abs(len(part) - min(most, n / 6)) for part in (held_out, test)) < 1
    np.testing.assert_array_equal(lazy.parts_of(n, 3, 7)[1], held_out)
    assert not np.array_equal(lazy.parts_of(n, 3, 8)[1], held_out)


def test_values_that_are_not_finite_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr(views, "BLOCK_BYTES", 8 * 4 * 7)
    rows = ROWS.copy()
    assert check_finite("x", rows) == (rows.min(), rows.max())
    rows[[41, 41, 300], [3, 2, 0]] = np.nan, np.inf, -np.inf
    with pytest.raises(data.DataError, match=r"3 value\(s\) are not finite, first inf at row 41, column 2"):
        check_finite("x", rows)


def test_a_mapped_value_out_of_all_proportion_is_refused_by_column(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGE", 1)
    rows = ROWS.astype(np.float64)
    rows[lazy.parts_of(500, 4, 0)[2][0], 1] = 1e300
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(data.DataError, match=r"inf|1e\+300 in column 1"):
        data.load(tmp_path / "x.npy")


def test_a_cut_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGE", 1)
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    with pytest.raises(data.DataError, match=r"no plain \.npy array"):
        data.load(tmp_path / "x.npy")


LARGE = """
    import json, resource, sys
    import jax
    import numpy as np
    from jaxdiff import data
    from jaxdiff.training.batches import batch_rows
    resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
    dataset = data.load(sys.argv[1])
    for step in range(200):
        batch = dataset.train[np.asarray(batch_rows(jax.random.key(0), step, len(dataset.train), 256))]
        assert batch.shape == (256, *dataset.event_shape) and batch.dtype == np.float32
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    sizes = [len(dataset.train), len(dataset.held_out), len(dataset.test)]
    print(json.dumps({"peak": int(status["VmHWM"].split()[0]) / 2**20, "sizes": sizes,
                      "mean": dataset.mean.tolist(), "scale": dataset.scale.tolist()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the memory from /proc")
@pytest.mark.parametrize("kind", ["table", "images"])
def test_six_gigabytes_are_read_within_two(tmp_path, kind):
    path, event, dtype = tmp_path / "x.npy", (1536,), np.float32
    if kind == "images":
        event, dtype = (32, 32, 3), np.uint8
    n = 6 * 10**9 // (int(np.prod(event)) * np.dtype(dtype).itemsize)
    rng, places = np.random.default_rng(0), np.random.default_rng(1).choice(n, 500, replace=False)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n, *event)}
        )
        start = stream.tell()
        size = int(np.prod(event)) * np.dtype(dtype).itemsize
        for place in places:
            stream.seek(start + place * size)
            stream.write((rng.integers(1, 255, event)).astype(dtype).tobytes())
        stream.truncate(start + n * size)
    assert path.stat().st_size > 5.9e9
    made = subprocess.run([sys.executable, "-c", textwrap.dedent(LARGE), str(path)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    told = json.loads(made.stdout)
    assert told["peak"] < 2
    assert told["sizes"] == [n - 20_000, 10_000, 10_000]
