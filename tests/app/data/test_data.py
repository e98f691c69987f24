"""Data sets: the digits, files in three formats, the split, and every file that cannot be used."""

import gc
import pathlib

import numpy as np
import pytest

from jaxdiff import data

ROWS = np.random.default_rng(0).normal(3, 2, (60, 4))


def parts(dataset):
    return dataset.train, dataset.held_out, dataset.test


def test_digits_are_split_standardised_and_restored():
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = data.load("digits")
    assert [part.shape for part in parts(digits)] == [(1198, 64), (299, 64), (300, 64)]
    assert {part.dtype for part in parts(digits)} == {np.dtype(np.float32)}
    assert (digits.name, digits.dim, digits.constant) == ("digits", 64, 3)  # pixels 0, 32 and 39 are always 0
    varies = digits.train.std(0) > 0
    assert varies.sum() == 61
    np.testing.assert_allclose(digits.train.mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(digits.train.std(0, dtype=np.float64)[varies], 1, rtol=1e-6)
    restored = np.concatenate([digits.restore(part) for part in parts(digits)])
    original = sklearn.load_digits(return_X_y=True)[0]
    assert sorted(map(tuple, restored.round(4) + 0.0)) == sorted(map(tuple, original))


def test_every_row_lands_in_exactly_one_part():
    numbered = np.arange(97.0)[:, None]
    dataset = data.split(numbered, name="numbers")
    assert [len(part) for part in parts(dataset)] == [65, 16, 16]
    restored = np.concatenate([dataset.restore(part) for part in parts(dataset)])
    np.testing.assert_allclose(np.sort(restored, axis=0), numbered, atol=1e-4)


def test_the_seed_alone_decides_the_split():
    one, same, other = (data.split(ROWS, name="rows", seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(parts(one), parts(same), parts(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.isin(one.restore(a).round(3), other.restore(c).round(3)).all()


def test_a_constant_column_keeps_its_value_and_is_counted():
    dataset = data.split(np.column_stack([ROWS, np.full(60, 0.1)]), name="rows")
    assert dataset.constant == 1
    assert all(np.abs(part[:, 4]).max() < 1e-15 for part in parts(dataset))
    np.testing.assert_allclose(dataset.restore(dataset.test)[:, 4], 0.1)


def test_columns_of_whole_numbers_are_recognised_and_rounded_on_request():
    rng = np.random.default_rng(2)
    counts, halves = rng.integers(-3, 9, 60), rng.integers(0, 9, 60) / 2
    almost = np.where(np.arange(60) == 59, 0.25, rng.integers(0, 9, 60))  # one value of 60 is not whole
    table = np.column_stack([ROWS[:, 0], counts, halves, almost, np.full(60, 7.0), counts + 1e6])
    dataset = data.split(table, name="rows")
    assert dataset.whole.tolist() == [False, True, False, False, False, True]  # a constant needs no rounding
    x = rng.normal(size=(20, 6))
    plain, rounded = dataset.restore(x), dataset.restore(x, rounded=True)
    np.testing.assert_array_equal(rounded[:, ~dataset.whole], plain[:, ~dataset.whole])
    np.testing.assert_array_equal(rounded[:, dataset.whole], np.rint(plain[:, dataset.whole]))
    assert not np.signbit(rounded[rounded == 0]).any()
    assert (np.abs(plain[:, 1] - rounded[:, 1]) > 0.1).any()


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e300])
def test_units_of_any_size_are_standardised_and_restored(factor):
    table = np.column_stack([ROWS[:, 0], factor * ROWS[:, 1], 1e9 + 1e-4 * ROWS[:, 2]])
    dataset, plain = data.split(table, name="rows"), data.split(ROWS, name="rows")
    assert dataset.constant == 0
    np.testing.assert_allclose(dataset.train[:, :2], plain.train[:, :2], rtol=1e-6, atol=1e-6)
    rounding = np.spacing(1e9) / (1e-4 * plain.scale[2])  # half of it in the value, less in the mean and the scale
    np.testing.assert_allclose(dataset.train[:, 2], plain.train[:, 2], atol=rounding)
    np.testing.assert_allclose(
        dataset.restore(dataset.train)[:, 1], factor * plain.restore(plain.train)[:, 1], rtol=1e-5
    )


def test_a_value_out_of_all_proportion_is_refused_by_column():
    table = np.column_stack([ROWS[:, 0], np.zeros(60)])
    table[np.random.default_rng(0).permutation(60)[-1], 1] = 1e300  # in the test part alone
    with pytest.raises(data.DataError, match=r"rows: 1e\+300 in column 1 .* more than 1e\+06 standard deviations"):
        data.split(table, name="rows")
    with pytest.raises(data.DataError, match="column 0"):
        data.split(np.where(ROWS > 3, -1.7e308, 1.7e308), name="rows")  # differences that overflow float64


@pytest.mark.parametrize(("n", "d"), [(2000, 3), (30, 100)])
def test_covariance_is_shrunk_as_its_noise_requires_and_keeps_its_diagonal(n, d):
    rng = np.random.default_rng(4)
    truth = 0.8 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    rows = np.column_stack([rng.normal(size=(n, d)) @ np.linalg.cholesky(truth).T, np.full(n, 7.0)])
    sample, shrunk = np.cov(rows.T), data.covariance(rows)
    np.testing.assert_allclose(np.diag(shrunk), np.diag(sample), rtol=1e-10)
    assert np.linalg.norm(shrunk[:d, :d] - truth) < (0.9 if n < d else 1.1) * np.linalg.norm(sample[:d, :d] - truth)
    assert np.linalg.eigvalsh(shrunk[:d, :d]).min() > 0.05
    assert not shrunk[d].any()
    ratios = (shrunk / np.where(sample == 0, 1, sample))[:d, :d][~np.eye(d, dtype=bool)]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-8)
    entries = np.array([np.outer(c, c) for c in rows - rows.mean(0)])  # the share, from its definition
    noise = entries.var(0, ddof=1) / n
    off = ~np.eye(d + 1, dtype=bool)
    share = min(1, noise[off].sum() / (entries.mean(0)[off] ** 2).sum())
    assert 1 - ratios[0] == pytest.approx(share, rel=1e-9)


def csv(text):
    return lambda path: path.write_text(text, encoding="utf-8")


TABLE = "\n".join(",".join(map(repr, row)) for row in ROWS.tolist())
SPACED = TABLE.replace(",", " , ").replace("\n", "\n\n")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.npy", lambda path: np.save(path, ROWS)),
        ("rows.npz", lambda path: np.savez(path, ROWS)),
        ("rows.csv", csv(TABLE)),
        ("rows.csv", csv("a,b,c,d\n" + TABLE)),
        ("rows.csv", csv("a,b,c,d\n" + SPACED)),
        ("rows.csv", csv("\ufeff" + TABLE)),  # a byte order mark, as spreadsheets write
        ("rows.tsv", csv("a\tb\tc\td\n" + TABLE.replace(",", "\t"))),
    ],
)
def test_every_format_gives_the_rows_of_the_file(tmp_path, name, write):
    write(tmp_path / name)
    dataset, want = data.load(str(tmp_path / name)), data.split(ROWS, name="rows")
    assert dataset.name == "rows"
    for got, part in zip(parts(dataset), parts(want), strict=True):
        np.testing.assert_array_equal(got, part)


def test_a_byte_order_mark_costs_no_row(tmp_path):
    (tmp_path / "one.csv").write_text("\n".join(map(str, range(30))), encoding="utf-8-sig")
    assert sum(map(len, parts(data.load(tmp_path / "one.csv")))) == 30


def npy(array):
    return lambda path: np.save(path, array)


def raw(content):
    return lambda path: path.write_bytes(content)


def archive(*arrays, flip=False, compress=False):
    def write(path):
        (np.savez_compressed if compress else np.savez)(path, *arrays)
        if flip:
            content = bytearray(path.read_bytes())
            content[len(content) // 4 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 4)
            path.write_bytes(content)

    return write


def as_npy(path):
    np.savez(path.with_suffix(".npz"), ROWS)
    path.with_suffix(".npz").rename(path)


def spoiled(value):
    rows = ROWS.copy()
    rows[7, 2] = value
    return rows


MIXED = np.array([[1, "a"]] * 30, object)
WIDE = np.zeros(30, [(f"a column with a long name, number {i}", float) for i in range(300)])
BAD = {
    "missing": ("x.npy", lambda path: None, "does not exist"),
    "folder": ("x.npy", pathlib.Path.mkdir, r"has no \.png, \.jpg, \.jpeg files"),
    "no bytes": ("x.csv", raw(b""), "0 bytes"),
    "spaces": ("x.csv", csv("1 2\n3 4\n"), "separate columns by commas, semicolons or tabs"),
    "two delimiters": ("x.csv", csv("1,5\n2,9\n1;2,3\n"), "separate columns by commas, semicolons or tabs"),
    "suffix": ("x.txt", raw(b"1,2"), r"ends in \.txt"),
    "no suffix": ("x", raw(b"1,2"), "ends in nothing"),
    "no rows": ("x.npy", npy(np.zeros((0, 4))), r"\(0, 4\)"),
    "no columns": ("x.npy", npy(np.zeros((30, 0))), r"\(30, 0\)"),
    "header only": ("x.csv", csv("a,b\n"), r"\(0, 2\)"),
    "blank lines": ("x.csv", csv("\n\n"), "no values"),
    "one dimension": ("x.npy", npy(np.arange(30.0)), r"1 dimension.*\(30,\).*x\[:, None\]"),
    "grey images": ("x.npy", npy(np.zeros((30, 2, 3))), "all pixels are 0"),
    "channels first": ("x.npz", archive(np.zeros((30, 3, 5, 6))), r"channels come last.*x\.transpose\(0, 2, 3, 1\)"),
    "films": ("x.npy", npy(np.zeros((30, 2, 4, 5, 3))), r"5 dim.*\(30, 2, 4, 5, 3\).*x\.reshape\(30, 120\)"),
    "few images": ("x.npy", npy(np.zeros((23, 2, 3))), "23 rows"),
    "nan in images": (
        "x.npy",
        npy(np.where(np.arange(180) == 13, np.nan, 0).reshape(30, 2, 3)),
        r"1 value.*nan at row 2, pixel \(0, 1\)",
    ),
    "strings": ("x.npy", npy(np.full((30, 2), "abc")), "<U3"),
    "complex": ("x.npy", npy(ROWS * 1j), "complex128"),
    "objects": ("x.npy", npy(MIXED), "Object arrays|pickle"),
    "objects, zipped": ("x.npz", archive(MIXED), "Object arrays|pickle"),
    "nan": ("x.npy", npy(spoiled(np.nan)), "nan at row 7, column 2"),
    "inf": ("x.npy", npy(spoiled(-np.inf)), "-inf at row 7, column 2"),
    "nan, csv": ("x.csv", csv(TABLE + "\nnan,1,2,3"), "nan at row 60, column 0"),
    "constant": ("x.npy", npy(np.full((30, 2), 0.1)), "no column varies.*30 rows"),
    "few rows": ("x.npy", npy(ROWS[:23]), "23 rows"),
    "ragged": ("x.csv", csv("1,2\n3,4\n5\n"), "row 3 has 1 cells, the first has 2"),
    "word": ("x.csv", csv("a,b\n1,2\n3,four\n"), "row 3, column 2 is 'four'"),
    "gap": ("x.csv", csv("1,2\n3,\n"), "row 2, column 2 is ''"),
    "latin-1": ("x.csv", raw(b"h\xf6he\n1\n"), "UTF-8"),
    "damaged npy": ("x.npy", raw(b"\x93NUMPY\x01\x00\x10\x00garbage"), "no plain .npy"),
    "text as npy": ("x.npy", raw(b"hello"), "no plain .npy"),
    "npz as npy": ("x.npy", as_npy, "npy"),
    "records": ("x.npy", npy(WIDE), "npy"),
    "text as npz": ("x.npz", raw(b"hello"), "no .npz"),
    "cut npz": ("x.npz", raw(b"PK\x03\x04hello"), "no .npz"),
    "damaged npz": ("x.npz", archive(ROWS, flip=True), "no .npz"),
    "damaged, compressed": ("x.npz", archive(ROWS, flip=True, compress=True), "no .npz"),
    "two arrays": ("x.npz", archive(ROWS, ROWS), r"2 arrays \['arr_0', 'arr_1'\]: choose one with key"),
    "NUL": ("x.csv", raw("1,2\n".encode("utf-16-le")), "UTF-16 without a byte-order mark"),
    "cut UTF-16": ("x.csv", raw("1,2\n".encode("utf-16") + b"\xd8"), "no UTF-16 text"),
}


@pytest.mark.parametrize(("name", "write", "message"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_with_its_path(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(path)
    gc.collect(0)  # an open file left behind is a warning, and so an error
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", [7.0, 0.1, 1e16, -3e-300])
def test_a_constant_column_is_restored_exactly_whatever_a_sampler_leaves_in_it(column):
    dataset = data.split(np.column_stack([ROWS, np.full(60, column)]), name="rows")
    noisy = np.random.default_rng(1).normal(0, 0.06, (2, 9, 5)).astype(np.float32)
    restored = dataset.restore(noisy)
    assert (restored[..., 4] == column).all()
    np.testing.assert_array_equal(restored[..., :4], data.split(ROWS, name="rows").restore(noisy[..., :4]))


def test_a_column_that_rounding_alone_moves_is_constant():
    tenths = np.where(np.arange(60) % 2, 0.3, 0.1 + 0.2)  # one ulp apart
    dataset = data.split(np.column_stack([ROWS, tenths]), name="rows")
    assert dataset.constant == 1
    assert set(dataset.restore(np.ones((5, 5)))[:, 4]) <= {0.3, 0.1 + 0.2}


def test_an_array_is_chosen_by_its_key_and_columns_by_their_positions(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 2, 2)), rows=ROWS)
    dataset, want = data.load(tmp_path / "x.npz", key="rows", columns=[2, 0]), data.split(ROWS[:, [2, 0]], name="x")
    np.testing.assert_array_equal(dataset.train, want.train)
    assert (dataset.reading.key, dataset.reading.columns) == ("rows", (2, 0))
    with pytest.raises(data.DataError, match=r"2 arrays \['images', 'rows'\], none of them 'labels'"):
        data.load(tmp_path / "x.npz", key="labels")
    with pytest.raises(data.DataError, match=r"no column 4: .* from 0 to 3"):
        data.load(tmp_path / "x.npz", key="rows", columns=[4])


@pytest.mark.parametrize(
    ("name", "option"), [("digits", "header"), ("x.npy", "header"), ("x.npy", "key"), ("x.csv", "key")]
)
def test_an_option_of_another_kind_of_file_is_refused(tmp_path, name, option):
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "x.csv").write_text(TABLE)
    source = name if name == "digits" else tmp_path / name
    with pytest.raises(data.DataError, match=f"without {option}, but {option} = "):
        data.load(source, **{option: "rows"})


def test_what_is_assumed_of_a_file_is_warned_of_and_reads_the_same_when_it_is_said(tmp_path):
    indexed = "\n".join(f"{i},{line}" for i, line in enumerate(TABLE.split()))
    (tmp_path / "x.csv").write_text("Unnamed: 0,0,1,2,3\n" + indexed)  # pandas, twice
    with pytest.warns(UserWarning, match=r"x\.csv: ") as told:
        dataset = data.load(tmp_path / "x.csv")
    assert [str(one.message) for one in told] == [f"{tmp_path / 'x.csv'}: {note}" for note in dataset.reading.notes]
    reading, want = dataset.reading, data.split(ROWS, name="x")
    assert (reading.header, reading.columns, reading.names) == (True, (1, 2, 3, 4), ("0", "1", "2", "3"))
    assert "Unnamed: 0,0,1,2,3, is read as names" in reading.notes[0]
    assert "Column 0, 'Unnamed: 0', numbers the rows and is left out" in reading.notes[1]
    again = data.load(tmp_path / "x.csv", header=reading.header, columns=reading.columns)
    assert again.reading.notes == ()
    for one in (dataset, again):
        np.testing.assert_array_equal(one.train, want.train)


def test_rows_that_vary_only_outside_the_train_part_are_refused():
    rows = np.zeros((30, 2))
    rows[np.random.default_rng(5).permutation(30)[-1]] = 1
    with pytest.raises(data.DataError, match="lonely: no column varies over the 20 train rows"):
        data.split(rows, name="lonely", seed=5)
