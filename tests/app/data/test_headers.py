"""Which line of a text file is its header and which column its index; the expected rows are those that were written."""

import numpy as np
import pytest

from jaxdiff.app.data import delimited
from jaxdiff.app.errors import DataError

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(3, 2, (60, 3)).round(3) + 0.0005  # no number is whole
WHOLE = RNG.integers(0, 9, (60, 3))
PIXELS = RNG.integers(0, 255, (60, 20))


def text(rows, delimiter=","):
    return "\n".join(delimiter.join(map(repr, row)) for row in rows.tolist())


def indexed(rows, index=range(60)):
    return "\n".join(f"{i},{line}" for i, line in zip(index, text(rows).split("\n"), strict=True))


def read(tmp_path, content, **how):
    path = tmp_path / "x.csv"
    path.write_text(content, encoding="utf-8", newline="")
    return delimited.read(path, **how)


NUMBERED = ",".join(map(str, range(20)))
WIDE = RNG.normal(size=(60, 5)).round(3) + 0.0005
FREQUENCIES = ("400.0", "400.1", "400.2", "400.3", "400.4")
GROWING = np.cumsum(RNG.integers(1, 4, 60))
LINES = RNG.normal(size=(60, 1)).round(3) + np.arange(6) * 0.5
FLOATS_1 = text(FLOATS[:, :1])
SURE = {  # content, rows, names, whether something was assumed
    "numbers": (text(FLOATS), FLOATS, None, False),
    "whole numbers": (text(WHOLE), WHOLE, None, False),
    "names": ("a,b,c\n" + text(FLOATS), FLOATS, ("a", "b", "c"), False),
    "nan as a name": ("nan,inf,x\n" + text(FLOATS), FLOATS, ("nan", "inf", "x"), False),
    "NA alone": ("NA,inf,nan\n" + text(FLOATS), FLOATS, ("NA", "inf", "nan"), True),
    "pandas' numbers": ("0,1,2\n" + text(FLOATS), FLOATS, ("0", "1", "2"), True),
    "a series": ("0\n" + FLOATS_1, FLOATS[:, :1], ("0",), True),
    "years": ("2019,2020,2021\n" + text(FLOATS), FLOATS, ("2019", "2020", "2021"), True),
    "wavelengths": ("850,660,780\n" + text(FLOATS), FLOATS, ("850", "660", "780"), True),
    "word and years": ("a,2019,2020\n" + text(FLOATS), FLOATS, ("a", "2019", "2020"), True),
    "pixels": (NUMBERED + "\n" + text(PIXELS), PIXELS, tuple(NUMBERED.split(",")), True),
    "a count over counts": (
        "0,1\n" + text(np.array([[0, 1], [1, 0]] * 30)),
        [[0, 1], *[[0, 1], [1, 0]] * 30],
        None,
        False,
    ),
    "repeated numbers": (
        "0,1,0\n" + text(FLOATS),
        [[0, 1, 0], *FLOATS],
        None,
        True,
    ),  # two tables of pandas side by side
    "repeated, %g": ("0,1,0\n" + text(FLOATS) + "\n2.5,3,1.5", [[0, 1, 0], *FLOATS, [2.5, 3, 1.5]], None, False),
    "exponents": ("1e5,2,3\n" + text(FLOATS), [[1e5, 2, 3], *FLOATS], None, False),
    "a row of its own sign": ("2,5\n" + text(-1 - WHOLE[:, :2]), [[2, 5], *-1 - WHOLE[:, :2]], None, False),
    "signed names": ("-1,0,1\n" + text(FLOATS), FLOATS, ("-1", "0", "1"), True),
    "one whole number": ("2019\n" + text(WHOLE[:, :1]), [[2019], *WHOLE[:, :1]], None, True),
    "frequencies": ("400.0,400.1,400.2,400.3,400.4\n" + text(WIDE), WIDE, FREQUENCIES, True),
    "falling wave numbers": ("8,6,4,2,0\n" + text(PIXELS[:, :5]), PIXELS[:, :5], ("8", "6", "4", "2", "0"), True),
    "lines in space": (text(LINES), LINES, None, False),
    "zeros": ("0,0,0,0,0\n" + text(PIXELS[:, :5]), [[0] * 5, *PIXELS[:, :5]], None, False),
    "comment as header": ("# run 5\n# a,b,c\n" + text(FLOATS), FLOATS, ("a", "b", "c"), False),
    "comments": ("# by hand\n" + text(FLOATS), FLOATS, None, False),
    "commented row": ("#1,2,3\n" + text(FLOATS), FLOATS, None, False),
    "trailing commas": ("a,b,c,\n" + text(FLOATS).replace("\n", ",\n") + ",", FLOATS, ("a", "b", "c"), False),
    "trailing, rows alone": ("a,b,c\n" + text(FLOATS).replace("\n", ",,\n") + ",,", FLOATS, ("a", "b", "c"), False),
    "index": (",a,b,c\n" + indexed(FLOATS), FLOATS, ("a", "b", "c"), True),
    "index over numbers": (",0,1,2\n" + indexed(WHOLE), WHOLE, ("0", "1", "2"), True),
    "index, shuffled": (",a,b,c\n" + indexed(FLOATS, RNG.permutation(60)), FLOATS, ("a", "b", "c"), True),
    "index from 1": ("ID,a,b,c\n" + indexed(FLOATS, range(1, 61)), FLOATS, ("a", "b", "c"), True),
    "index without header": (indexed(FLOATS), FLOATS, None, True),
    "R's row names": ('"V1","V2","V3"\n' + indexed(FLOATS, range(1, 61)), FLOATS, ("V1", "V2", "V3"), True),
    "a named count": ("t,a,b,c\n" + indexed(FLOATS), np.c_[np.arange(60), FLOATS], ("t", "a", "b", "c"), True),
    "one column that counts": ("\n".join(map(str, range(60))), np.arange(60)[:, None], None, False),
    "floats that count": (text(np.c_[np.arange(60.0), FLOATS]), np.c_[np.arange(60.0), FLOATS], None, True),
    "growing numbers": (indexed(FLOATS, GROWING), np.c_[GROWING, FLOATS], None, True),
    "years without header": (indexed(FLOATS, range(1950, 2010)), np.c_[1950:2010, FLOATS], None, True),
    "equal numbers": (indexed(FLOATS, [5, 5, *range(6, 64)]), np.c_[[5, 5, *range(6, 64)], FLOATS], None, False),
    "the last column counts": (text(np.c_[FLOATS, 1:61]), np.c_[FLOATS, 1:61], None, True),
    "nearly": (
        text(np.c_[FLOATS, 1:61]) + "\n2.5,1.5,3.5,60.0",
        [*np.c_[FLOATS, 1:61], [2.5, 1.5, 3.5, 60]],
        None,
        False,
    ),
    "four rows": (text(np.c_[FLOATS, 1:61][:4]), np.c_[FLOATS, 1:61][:4], None, False),
    "no index": ("id,b,c\n" + text(WHOLE), WHOLE, ("id", "b", "c"), False),
}


@pytest.mark.parametrize("case", SURE)
def test_names_rows_and_index_are_distinguished(tmp_path, case):
    content, rows, names, assumed = SURE[case]
    table = read(tmp_path, content)
    np.testing.assert_array_equal(table.rows, rows)
    assert table.names == names
    assert bool(table.notes) == assumed
    again = read(tmp_path, content, header=table.header, columns=table.columns)
    np.testing.assert_array_equal(again.rows, rows)
    assert (again.names, again.notes) == (names, ())


ASKED = {
    "few numbers over whole numbers": "0,1,2\n" + text(WHOLE),
    "years over whole numbers": "2019,2020,2021\n" + text(WHOLE),
    "words and numbers": "1,2,oops\n" + text(WHOLE),
}


@pytest.mark.parametrize("case", ASKED)
def test_a_line_that_can_be_both_is_asked_about(tmp_path, case):
    with pytest.raises(DataError, match=r"the first line, .* can be names or a row: say header=True or False"):
        read(tmp_path, ASKED[case])
    table = read(tmp_path, ASKED[case], header=True)
    np.testing.assert_array_equal(table.rows, WHOLE)
    if case == "words and numbers":
        with pytest.raises(DataError, match="row 1, column 3 is 'oops'"):
            read(tmp_path, ASKED[case], header=False)
    else:
        assert read(tmp_path, ASKED[case], header=False).rows.shape == (61, 3)


REFUSED = {
    "header again": ("a,b,c\n" + text(FLOATS) + "\na,b,c\n" + text(FLOATS), "row 62 repeats the header of row 1"),
    "numbers again": ("0,1,2\n" + text(FLOATS) + "\n0,1,2\n" + text(FLOATS), "row 62 repeats the header of row 1"),
    "pixels again": (NUMBERED + "\n" + text(PIXELS) + "\n" + NUMBERED, "row 62 repeats the header of row 1"),
    "nameless floats": (",b,c\n" + text(FLOATS), "column 0 has no name and does not number the rows"),
    "decimal commas": ("x\n" + text(WHOLE[:, :2]), "column 0 has no name .* or write decimal points if the commas are"),
    "doubles of Fortran": ("1.5D+05,2\n" * 30, r"row 1, column 1 is '1\.5D\+05', .* write E for D"),
    "dates first": ("2019-01-01,2\n" * 30, "row 1, column 1 is '2019-01-01', not a number.*header=True"),
    "missing first": ("1,2,?\n" + text(WHOLE), "row 1, column 3 is '[?]'.*missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_neither_is_refused(tmp_path, case):
    content, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_columns_are_chosen_by_name_then_by_position(tmp_path):
    dated = "day,2,1,b\n" + "\n".join(f"2019-01-{i:02},{i},{i + 0.5},x" for i in range(1, 31))
    i = np.arange(1, 31)
    for columns, want in ((["1", "2"], [i + 0.5, i]), ([2, 1], [i + 0.5, i]), (["2", "2 "][:1], [i])):
        table = read(tmp_path, dated, columns=columns)
        np.testing.assert_array_equal(table.rows, np.stack(want, 1))
        assert table.notes == () or "first line" in table.notes[0]
    for columns, message in (
        (["c"], "no column 'c': its columns are day,2,1,b"),
        ([4], "no column 4"),
        ([-1], "no column -1"),
        (["1", 2], "one column twice"),
        ([], "or none"),
        (["day"], "row 2, column 1 is '2019-01-01', not a number: it is a date: encode or drop it, or leave"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path, dated, columns=columns)
    with pytest.raises(DataError, match="2 columns are named 'a': give positions"):
        read(tmp_path, "a,a,b\n" + text(FLOATS), columns=["a"])
