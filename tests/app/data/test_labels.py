"""Labels: of columns, files, archives and arrays, and all that do not fit."""

import numpy as np
import pytest

from jaxdiff import data
from jaxdiff.app.data.labels import encode

ROWS = np.random.default_rng(0).normal(3, 2, (60, 4))
KINDS = np.array(["setosa", "virginica", "colchica"])[np.arange(60) % 3]
TEXT = "a,b,kind,c,d\n" + "\n".join(
    f"{a!r},{b!r},{kind},{c!r},{d!r}" for (a, b, c, d), kind in zip(ROWS.tolist(), KINDS, strict=True)
)


def check(dataset, names=("colchica", "setosa", "virginica")):
    """The rows are those without labels, and each has the label that it had."""
    assert dataset.labels.names == names
    number = {tuple(row.round(3)): names.index(str(kind)) for row, kind in zip(ROWS, KINDS, strict=True)}
    for part in ("train", "held_out", "test"):
        rows = dataset.restore(np.asarray(getattr(dataset, part)))
        assert [number[tuple(row.round(3))] for row in rows] == getattr(dataset.labels, part).tolist()


@pytest.mark.parametrize("labels", ["kind", 2, "2"])
def test_labels_of_a_text_table_are_a_column_by_name_or_position(tmp_path, labels):
    (tmp_path / "x.csv").write_text(TEXT)
    dataset = data.load(tmp_path / "x.csv", labels=labels)
    assert dataset.reading.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(dataset.train, data.split(ROWS, name="x").train)
    check(dataset)


def test_a_text_column_is_refused_by_name_with_the_remedy(tmp_path):
    (tmp_path / "x.csv").write_text(TEXT)
    with pytest.raises(data.DataError, match=r"'setosa', not a number.*--labels.*named 'kind'"):
        data.load(tmp_path / "x.csv")


@pytest.mark.parametrize("ending", [".npy", ".csv", ".txt", "header.txt"])
def test_labels_of_a_file(tmp_path, ending):
    path = tmp_path / f"labels{ending}"
    if ending == ".npy":
        np.save(path, KINDS)
    else:
        path.write_text("\n".join(["kind"] * ending.startswith("header") + KINDS.tolist()) + "\n")
    np.save(tmp_path / "x.npy", ROWS)
    check(data.load(tmp_path / "x.npy", labels=path))
    check(data.load(tmp_path / "x.npy", labels=str(path)))


def test_labels_of_an_archive_an_array_and_a_column_of_an_array(tmp_path):
    np.savez(tmp_path / "x.npz", rows=ROWS, kinds=KINDS)
    check(data.load(tmp_path / "x.npz", labels="kinds"))
    check(data.load(ROWS, labels=KINDS))
    numbered = np.column_stack([ROWS, np.unique(KINDS, return_inverse=True)[1]])
    np.save(tmp_path / "x.npy", numbered)
    dataset = data.load(tmp_path / "x.npy", labels=4)
    assert dataset.dim == 4
    assert dataset.labels.names == ("0", "1", "2")


@pytest.mark.parametrize("labels", ["kind", None])
def test_a_parquet_table_is_read_with_its_labels_or_refused_by_the_name_of_the_column(tmp_path, labels):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {name: ROWS[:, i] for i, name in enumerate("abcd")} | {"kind": KINDS}
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    if labels is None:
        with pytest.raises(data.DataError, match=r"column 'kind' holds string, not numbers: encode.*--labels"):
            data.load(tmp_path / "x.parquet")
        np.testing.assert_array_equal(
            data.load(tmp_path / "x.parquet", columns=["d", "a"]).train, data.split(ROWS[:, [3, 0]], name="x").train
        )
    else:
        check(data.load(tmp_path / "x.parquet", labels=labels))


def test_a_parquet_file_without_pyarrow_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(data.DataError, match=r"pyarrow, which is not installed: pip install 'jaxdiff\[data\]'"):
        data.load(tmp_path / "x.parquet")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(data.DataError, match=r"x\.parquet is no Parquet file"):
        data.load(tmp_path / "x.parquet")


def test_numbers_are_sorted_by_size_and_text_that_is_numbers_counts_as_such():
    for labels in ([10, 2, 10, 2, -1, -1], ["10", "2", "10.0", "2", "-1", "-1"], [10.0, 2, 10, 2, -1, -1]):
        values, names = encode("x", labels, 6)
        assert (values.tolist(), names) == ([2, 1, 2, 1, 0, 0], ("-1", "2", "10"))


BAD = {
    "too few": (["a", "b"] * 29, r"labels of shape \(58,\) for 60 rows"),
    "one row": (["a"] * 30 + ["b"] * 29 + ["c"], "class 'c' has one row, row 59"),
    "empty": (["a", "b"] * 29 + ["", "na"], r"2 label\(s\) are missing, first '' at row 58"),
    "nan": ([0.0, 1.0] * 29 + [np.nan, 1.0], r"1 label\(s\) are missing, first nan at row 58"),
    "not whole": ([0.0, 1.0] * 29 + [0.5, 1.0], r"label 0\.5 at row 58 \(from 0\) is not whole"),
    "one class": ([3] * 60, "all 60 labels are '3'"),
}


@pytest.mark.parametrize(("labels", "message"), BAD.values(), ids=BAD)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(data.DataError, match=message):
        data.load(ROWS, labels=np.array(labels))


def test_a_class_without_train_rows_is_refused():
    order = np.random.default_rng(0).permutation(60)
    labels = np.isin(np.arange(60), order[-2:]).astype(int)
    with pytest.raises(data.DataError, match="no row of class '1' is among the 40 train rows"):
        data.load(ROWS, labels=labels)


@pytest.mark.parametrize(
    ("labels", "message"), [("gone.npy", "gone.npy does not exist"), ("colour", "has no column 'colour'")]
)
def test_a_missing_file_or_column_of_labels_is_named(tmp_path, labels, message):
    (tmp_path / "x.csv").write_text(TEXT)
    with pytest.raises(data.DataError, match=message):
        data.load(tmp_path / "x.csv", labels=labels)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (64,), 10),
        ("digit_images", (8, 8, 1), 10),
        ("wine", (13,), 3),
        ("breast_cancer", (30,), 2),
        ("patches", (8, 8, 3), 2),
    ],
)
def test_built_in_sets_have_labels(name, shape, classes):
    dataset = data.load(name)
    assert dataset.event_shape == shape
    assert len(dataset.labels.names) == classes
    assert len(dataset.labels.train) == len(dataset.train)
    assert set(dataset.labels.test) == set(range(classes))


def test_the_labels_of_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    rows, labels = datasets.load_digits(return_X_y=True)
    own = {row.tobytes(): label for row, label in zip(rows, labels, strict=True)}
    for name in ("digits", "digit_images"):
        dataset = data.load(name)
        found = [own[row.tobytes()] for row in dataset.restore(dataset.test).round(3).reshape(-1, 64) + 0.0]
        assert found == dataset.labels.test.tolist()
