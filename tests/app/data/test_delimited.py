"""Text files of numbers in every spelling: read as NumPy would, or refused with the remedy."""

import numpy as np
import pytest

from jaxdiff.app.data import delimited
from jaxdiff.app.errors import DataError

ROWS = np.random.default_rng(0).normal(3, 2, (30, 3)).round(4)
TABLE = "\n".join(",".join(map(repr, row)) for row in ROWS.tolist())
DECIMAL = TABLE.replace(",", ";").replace(".", ",")


def read(tmp_path, content, encoding="utf-8", **how):
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode(encoding))
    return delimited.read(path, **how)


READ = {
    "commas": TABLE,
    "semicolons": TABLE.replace(",", ";"),
    "tabs": TABLE.replace(",", "\t"),
    "decimal commas": DECIMAL,
    "decimal commas between tabs": DECIMAL.replace(";", "\t"),
    "the delimiter said": "sep=;\n" + DECIMAL,
    "commas and tabs": TABLE.replace(",", ",\t"),
    "quoted": '"' + TABLE.replace(",", '", "').replace("\n", '"\n"') + '"',
    "lines of Windows": TABLE.replace("\n", "\r\n"),
    "lines of old Macs": TABLE.replace("\n", "\r"),
    "typographic minus": TABLE.replace("-", "\u2212"),
    "exponents": "\n".join(",".join(f"{x:.16E}" for x in row) for row in ROWS.tolist()),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("header", ["", "a,b;c", "height, cm", '"two\nlines"'])
def test_every_spelling_gives_the_rows(tmp_path, case, encoding, header):
    content, names = READ[case], None
    if header:
        delimiter = next(
            (one for one in "\t;," if one in content.split("sep=;")[-1] and case != "commas and tabs"), ","
        )
        quoted = header if header.startswith('"') else f'"{header}"'
        line = delimiter.join([quoted, "y", "z"]) + "\n"
        content = content.replace("sep=;\n", "sep=;\n" + line) if "sep=" in content else line + content
        names = (header.strip('"'), "y", "z")
    table = read(tmp_path, content, encoding)
    np.testing.assert_array_equal(table.rows, ROWS)
    assert (table.names, table.notes) == (names, ())


def test_commas_that_could_separate_thousands_are_said_to_be_decimal(tmp_path):
    table = read(tmp_path, "1,234;5\n" * 30)
    np.testing.assert_array_equal(table.rows, [[1.234, 5]] * 30)
    assert table.notes == ("Commas are read as decimal commas: 1,234 is 1.234.",)
    assert read(tmp_path, "1,234;5\n" * 30 + "1,25;3").notes == ()


def test_points_that_could_separate_thousands_are_said_to_be_decimal(tmp_path):
    table = read(tmp_path, "1.234;5\n" * 30)
    np.testing.assert_array_equal(table.rows, [[1.234, 5]] * 30)
    assert table.notes == ("Points are read as decimal points, not between thousands: 1.234.",)
    for other in ("1.25;3", "0.234;3"):
        assert read(tmp_path, "1.234;5\n" * 30 + other).notes == ()
    assert read(tmp_path, "1.234,5\n" * 30).notes == ()


@pytest.mark.parametrize(("cells", "zeros"), [(("3,25", "4,05"), "05"), (("1,000", "12,500"), "000")])
def test_commas_within_numbers_are_said_to_end_columns(tmp_path, cells, zeros):
    lines = list(cells) * 15
    table = read(tmp_path, "\n".join(lines))
    np.testing.assert_array_equal(table.rows, [[int(part) for part in line.split(",")] for line in lines])
    (note,) = table.notes
    assert f"Column 1 is written with leading zeros, {zeros}: commas are read as ends of columns" in note
    for other in ("1,5", "1,2.5"):  # decimals of another length, or no whole number
        assert read(tmp_path, "\n".join([*lines, other])).notes == ()
    assert read(tmp_path, "\n".join(lines).replace(",", ";")).notes == ()
    assert read(tmp_path, "\n".join(lines), columns=[0, 1]).notes == ()  # the reader knows of two columns
    assert read(tmp_path, "\n".join(f"{zeros},1.5" for _ in lines)).notes == ()  # no comma before it


def test_whole_numbers_beyond_float64_are_said_to_be_rounded(tmp_path):
    exact, rounded = 2**53, 2**53 + 1  # the first that float64 lacks
    assert read(tmp_path, f"{exact},5\n" * 30).notes == ()
    content = "3.5,5\n" * 30 + f"3.5,-{rounded}"
    for how in ({}, {"columns": [1]}):
        table = read(tmp_path, content, **how)
        np.testing.assert_array_equal(table.rows[:, -1], [*[5] * 30, -exact])
        assert table.notes == (
            f"Column 1 has whole numbers beyond 2^53, which are rounded: -{rounded} is read as -{exact}.",
        )
    assert np.isinf(read(tmp_path, f"{10**400},1\n").rows[0, 0])


def test_a_missing_value_of_one_column_is_counted(tmp_path):
    table = read(tmp_path, 'x\n1.5\n""\n2.5\n\n3.5\n""\n')  # as pandas writes nan in one column; and a blank line
    np.testing.assert_array_equal(table.rows, [[1.5], [2.5], [3.5]])
    assert table.notes == ("2 row(s) of empty cells are left out, the first in line 3.",)
    assert read(tmp_path, f"{TABLE}\n   \n{TABLE}").notes == ()  # spaces alone, in a table of three columns


def test_rows_without_a_value_are_counted(tmp_path):
    table = read(tmp_path, f"{TABLE}\n,,\n\n{TABLE}\n , ,\n")
    np.testing.assert_array_equal(table.rows, [*ROWS, *ROWS])
    assert table.notes == ("2 row(s) of empty cells are left out, the first in line 31.",)


WRONG = {
    "thousands": ('"1,234",5,6', "row 31, column 1 is '1,234', .* thousands separators"),
    "thousands and a point": ('"1,234.5",5,6', "'1,234.5', .* thousands separators"),
    "apostrophes": ("1'234,5,6", "thousands separators"),
    "narrow spaces": ("1\u202f234,5,6", "thousands separators"),
    "a decimal comma": ('5,"1,5",6', "row 31, column 2 is '1,5', .* decimal comma"),
    "underscores": ("1_000,5,6", "'1_000', .* underscores"),
    "truth": ("5,True,6", "'True', .* 1 and 0"),
    "missing": ("5,6,NA", "column 3 is 'NA', .* missing value"),
    "empty": ("5,,", "column 2 is '', not a number, and 1 more cells are empty"),
    "hexadecimal": ("0x1F,5,6", "decimal number"),
    "a decimal comma and an exponent": ('5,"1,5e3",6', "'1,5e3', .* decimal comma"),
    "Fortran": ("5,1.5D5,6", "'1.5D5', .* write E for D"),
    "a date": ("2019-01-01,5,6", "it is a date: .* leave its column out"),
    "a time of day": ("31.12.2019 12:30,5,6", "it is a date: "),
    "a comment": ("# end,5,6", "remove the comment"),
    "a longer row": ("1,2,3,4", "row 31 has 4 cells, the first has 3"),
    "an open quote": ('"1,2,3', "no UTF-8 text of a table"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("header", ["", "a,b,c\n"])
def test_a_cell_that_is_no_number_is_refused_with_its_remedy(tmp_path, case, header):
    line, message = WRONG[case]
    with pytest.raises(DataError, match=message.replace("31", "32" if header else "31")):
        read(tmp_path, f"{header}{TABLE}\n{line}\n")


@pytest.mark.parametrize("case", ["thousands", "a decimal comma", "underscores", "hexadecimal", "a date"])
def test_such_a_cell_in_the_first_row_is_no_name(tmp_path, case):
    line = WRONG[case][0]
    with pytest.raises(DataError, match="row 1, column"):
        read(tmp_path, f"{line}\n{TABLE}")


def test_decimal_commas_beside_points_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a comma, '3,.*', and with a point, '1\.234,5'"):
        read(tmp_path, DECIMAL + "\n1.234,5;2;3")
