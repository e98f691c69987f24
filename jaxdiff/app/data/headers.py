"""Whether the first line of a table of text names its columns, or is a row of numbers."""

import math
import re
from typing import NamedTuple

from jaxdiff.app.data.cells import ENOUGH_TO_COUNT, FORTRAN, is_signed, is_whole, number, shown
from jaxdiff.app.data.columns import kind_of_column
from jaxdiff.app.errors import DataError

OVERRULE = "(header=True or False, --header or --no-header, overrules this)"
YEARS = range(1900, 2101)  # whole numbers that may be names of columns
MISSING = ("", "na", "n/a", "<na>", "nan", "null", "none", "missing", "?", "-", "--", ".")  # cells without a value


class Headed(NamedTuple):
    """A table without its header.

    Attributes:
      header: whether the first line was a header.
      names: of the columns, or None.
      numbers: line numbers of `lines` in the file.
      lines: the rows, as lists of cells.
      notes: sentences about everything that was assumed.
    """

    header: bool
    names: list[str] | None
    numbers: list[int]
    lines: list[list[str]]
    notes: list[str]


def header_of(path, numbers, lines, header=None) -> Headed:
    """Take the comments and the header off a table.

    The first line is a header

    - if it has no finite number and no cell that looks like one, such as a date ("nan" and "inf" can be names);
    - if it has different whole numbers, and the column below one of them has none: names 0,1,2 or 2019,2020,2021 over
      0.5,0.7,0.2;
    - if it has five numbers or more at equal distances, and no other line has: names 0,1,2,3,4 over whole numbers, or
      wavelengths 400.0,400.5,...;
    - if it has an empty first cell before whole numbers, and the first column is an index.

    Two to four numbers that count by one from 0 or 1, or in years, over whole numbers can be names or a row: that is an
    error. Any other line of numbers is a row. A note says so if it could be a header after all: whole numbers that
    repeat over numbers that are not whole, or a single 0, 1 or year.

    Args:
      path: for messages.
      numbers: line numbers of `lines`.
      lines: lists of cells. Those at the top that begin with "#" are comments. The last comment gives the names if it
        has as many cells as the first row and no other line is a header.
      header: True or False if the caller knows; None decides.

    Raises:
      DataError: the first line can be read in two ways, or a later line repeats the header.
    """
    comments = next((i for i, line in enumerate(lines) if not line[0].startswith("#")), len(lines))
    commented = lines[comments - 1] if comments else None
    numbers, lines = numbers[comments:], _without_empty_end(lines[comments:])
    notes = []
    if header is None:
        header, notes = _judged(path, lines)
    if header and lines:
        names, own = [cell.strip() for cell in lines[0]], numbers[0]
        again = next((n for n, line in zip(numbers[1:], lines[1:], strict=True) if line == lines[0]), None)
        if again is not None:
            raise DataError(f"{path}: row {again} repeats the header of row {own}: remove it.")
        if len(lines) > 1 and len(lines[1]) == len(names) + 1:
            names = ["", *names]  # R's write.table gives the row names no name
        return Headed(True, names, numbers[1:], lines[1:], notes)
    if commented and lines and len(commented) == len(lines[0]):
        names = [cell.strip() for cell in (commented[0].lstrip("# "), *commented[1:])]
        if any(number(name) is None for name in names):
            return Headed(False, names, numbers, lines, notes)
    return Headed(False, None, numbers, lines, notes)


def _without_empty_end(lines):
    """Lines without an empty last column, which delimiters at the ends of lines make."""
    lines = list(lines)
    while len(lines) > 1 and len(lines[1]) > 1:
        head, width = lines[0], len(lines[1])
        nameless = len(head) < width or (len(head) == width and not head[-1].strip())
        if not nameless or not all(len(line) == width and not line[-1].strip() for line in lines[1:]):
            break
        lines = [head[: width - 1], *(line[:-1] for line in lines[1:])]
    while len(lines) > 1 and len(lines[0]) > len(lines[1]) and not lines[0][-1].strip():
        lines[0] = lines[0][:-1]
    return lines


def _judged(path, lines):
    """Whether the first line is a header, and a note for each assumption."""
    if not lines or any(len(line) != len(lines[1]) for line in lines[2:]):
        return False, []  # rows of different lengths: the reader raises an error that names the row
    first, body = [cell.strip() for cell in lines[0]], lines[1:]
    words = [cell for cell in first if number(cell) is None]
    values = [value for cell in first if (value := number(cell)) is not None]
    finite = [value for value in values if math.isfinite(value)]
    gaps, odd = [word for word in words if word.lower() in MISSING], [word for word in words if _is_odd(word)]
    note = [f"The first line, {shown(first)}, is read as names of columns {OVERRULE}."]
    if not finite and not odd:
        return True, note if len(gaps) == len(words) else []
    over_an_index = gaps == [""] and first[0] == ""
    if odd or len(finite) < len(values) or (gaps and not over_an_index):
        return False, []  # a row with cells that are no numbers: the reader raises an error that names the cell
    if _are_names(first, finite, body):
        return True, [] if over_an_index else note
    kind = _count_of(first)
    alone = kind in ("0 or 1", "years") and body and not any(_count_of(line) == kind for line in body)
    if words or (alone and 1 < len(finite) < ENOUGH_TO_COUNT):
        raise DataError(
            f"{path}: the first line, {shown(first)}, can be names or a row: say header=True or False "
            f"(--header, --no-header)."
        )
    over_none = all(map(is_whole, first)) and body and not any(is_signed(cell) for line in body for cell in line)
    doubtful = over_none or (alone and len(finite) == 1)
    return False, [f"The first line, {shown(first)}, is read as a row {OVERRULE}."] if doubtful else []


def _is_odd(word):
    """Whether a word is more like a value than a name: it has digits and no letter (a date, 1_000, 5 %), or is 0x1F."""
    letters = any(map(str.isalpha, word)) and not re.fullmatch(rf"[+-]?0[xX][0-9a-fA-F]+|{FORTRAN}", word)
    return any(map(str.isdigit, word)) and not letters


def _are_names(first, values, body):
    """Whether the numbers of the first line are names by the rules of `header_of`."""
    whole = len(set(values)) == len(values) and all(value.is_integer() for value in values)
    if whole and not first[0] and kind_of_column("", [line[0] for line in body]) == "count":
        return True
    if whole and _differs(first, body):
        return True
    kind = _count_of(first)
    others = [[cell.strip() for cell in line] for line in body if kind and _count_of(line) == kind]
    return len(values) >= ENOUGH_TO_COUNT and kind is not None and all(line == first for line in others)


def _differs(first, body):
    """Whether some column has a whole number in the first line alone, apart from lines that repeat it."""
    width, others = len(first), [line for line in body if [cell.strip() for cell in line] != first]
    if not others or any(len(line) < width for line in others):
        return False
    if not all(number(cell) is None or is_signed(cell) for cell in first):
        return False  # names are not written like 1e5
    columns = [column for column in range(width) if is_whole(first[column])]
    return any(not any(is_signed(line[column]) for line in others) for column in columns)


def _count_of(line):
    """How the cells count: "0 or 1" (from 0 or 1 in steps of one), "years", "other" (equal distances), or None.

    An empty first cell is left out.
    """
    cells = line if line[0].strip() else line[1:]
    values = []
    for cell in cells:
        value = number(cell)
        if value is None or not math.isfinite(value):
            return None
        if len(values) > 1 and not math.isclose(value - values[-1], values[1] - values[0], rel_tol=1e-6):
            return None
        values.append(value)
    by_one = bool(values) and all(value == values[0] + i for i, value in enumerate(values))
    if by_one and values[0] in (0, 1):
        return "0 or 1"
    if by_one and values[0] in YEARS and values[-1] in YEARS:
        return "years"
    return "other" if len(values) > 1 and values[0] != values[1] else None
