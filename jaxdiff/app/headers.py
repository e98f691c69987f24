"""What the lines and columns of a table of text are: names or numbers, features or a running count of the rows."""

import itertools
import math
import re
from typing import NamedTuple

ENOUGH_TO_COUNT = 5  # so many numbers that count by one are names; fewer can be a row by chance, and are asked about
YEARS = range(1900, 2101)
INDEX_NAMES = ("index", "id", "row", "no", "nr", "#", "level_0")
MISSING = ("", "na", "n/a", "<na>", "nan", "null", "none", "missing", "?", "-", "--", ".")
MINUS = "\u2212"
FORTRAN = r"[+-]?(\d+[.,]?\d*|[.,]\d+)[dD][+-]?\d+"  # double precision
OVERRULE = "(header=True or False, --header or --no-header, overrules this)"


class DataError(ValueError):
    """The data cannot be used; the message names what came and what to do."""


class Headed(NamedTuple):
    """A table apart from its header: whether its first line was one, names or None, line numbers, lines, notes."""

    header: bool
    names: list[str] | None
    numbers: list[int]
    lines: list[list[str]]
    notes: list[str]


def number(cell):
    """The number that a cell is, also with a decimal comma or a typographic minus sign, or None; "1_000" is none."""
    plain = cell.replace(MINUS, "-")
    try:
        return None if "_" in plain else float(plain.replace(",", ".", 1) if "." not in plain else plain)
    except ValueError:
        return None


def header_of(path, numbers, lines, header=None) -> Headed:
    """Take the comments and the header off a table.

    A first line without a finite number is a header, "nan" and "inf" too. One of different whole numbers is a header
    where some column has no other whole number (names 0,1,2 or 2019,2020,2021 over 0.5,0.7,0.2). One of five numbers
    or more at equal distances is a header where no other line has equal distances (names 0,1,2,3,4 over whole numbers;
    wavelengths 400.0,400.5,...). What counts by one from 0 or 1 or in years over two to four columns of whole numbers
    can be names or a row, and is refused. All other lines of numbers are rows, and a note says so where a name is
    likely: whole numbers that repeat, over none, and one number from which one could count. An empty first cell before
    whole numbers is a header where the first column is an index.

    Args:
      path: for messages.
      numbers: line numbers of `lines`.
      lines: lists of cells; those at the top that begin with "#" are comments. The last of them has the names if it has
        as many cells as the first row and no other line has names.
      header: True or False where the caller knows.

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
    """Lines without a last column that has neither a name nor a value, as delimiters at the ends of lines make."""
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
        return False, []  # rows of different lengths are refused by their place
    first, body = [cell.strip() for cell in lines[0]], lines[1:]
    words = [cell for cell in first if number(cell) is None]
    values = [value for cell in first if (value := number(cell)) is not None]
    finite = [value for value in values if math.isfinite(value)]
    gaps, odd = [word for word in words if word.lower() in MISSING], [word for word in words if _is_odd(word)]
    note = [f"The first line, {_shown(first)}, is read as names of columns {OVERRULE}."]
    if not finite and not odd:
        return True, note if len(gaps) == len(words) else []
    over_an_index = gaps == [""] and first[0] == ""
    if odd or len(finite) < len(values) or (gaps and not over_an_index):
        return False, []  # a row with cells that are refused by their place
    if _are_names(first, finite, body):
        return True, [] if over_an_index else note
    kind = _count_of(first)
    alone = kind in ("0 or 1", "years") and body and not any(_count_of(line) == kind for line in body)
    if words or (alone and 1 < len(finite) < ENOUGH_TO_COUNT):
        raise DataError(
            f"{path}: the first line, {_shown(first)}, can be names or a row: say header=True or False "
            f"(--header, --no-header)."
        )
    over_none = all(map(_is_whole, first)) and body and not any(_is_signed(cell) for line in body for cell in line)
    doubtful = over_none or (alone and len(finite) == 1)
    return False, [f"The first line, {_shown(first)}, is read as a row {OVERRULE}."] if doubtful else []


def _is_odd(word):
    """Whether a word has digits and no letter: a date, 1_000, 5 %, a number with thousands separators; 0x1F, 1D5."""
    letters = any(map(str.isalpha, word)) and not re.fullmatch(rf"[+-]?0[xX][0-9a-fA-F]+|{FORTRAN}", word)
    return any(map(str.isdigit, word)) and not letters


def _are_names(first, values, body):
    """Whether the numbers of the first line are names by the rules of `header_of`."""
    whole = len(set(values)) == len(values) and all(value.is_integer() for value in values)
    if whole and not first[0] and _index("", [line[0] for line in body]) == "count":
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
    if not all(number(cell) is None or _is_signed(cell) for cell in first):
        return False  # 1e5,2,3 are no names
    columns = [column for column in range(width) if _is_whole(first[column])]
    return any(not any(_is_signed(line[column]) for line in others) for column in columns)


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


def _is_whole(cell):
    """Whether the cell is written as 0, 1, 2, ...: without sign, point or exponent."""
    cell = cell.strip()
    return cell.isascii() and cell.isdigit()


def _is_signed(cell):
    """Whether the cell is written as a whole number, with or without a sign."""
    return _is_whole(cell.strip().removeprefix("+").removeprefix("-"))


def index_columns(path, names, lines):
    """Positions of leading columns that count the rows and are no feature, and notes on them.

    Left out, as long as another column remains: a first column without a name ("" and "Unnamed: 0" are none) whose
    whole numbers differ, as an index of pandas or R; one named index, id, row, no, nr, # or level_0 that counts by one;
    in a table without names one that is written 0, 1, 2, ... or 1, 2, 3, ... to its end. Any other column that counts
    by one is kept, and a note says so. So is a first column of growing whole numbers in a table without names.

    Raises:
      DataError: the first column of a table with names has none, and its numbers repeat or are not whole.
    """
    left_out, notes = [], []
    width = len(names if names is not None else lines[0] if lines else ())
    kept = "may number the rows and is kept: columns= or --columns leaves it out."
    last = -1  # of the leading columns that are looked at as an index
    for position in range(width - 1 if len(lines) > 1 else 0):
        name = None if names is None else names[position]
        verdict, last = _index(name, [line[position] for line in lines]), position
        what = _column(position, name)
        if verdict == "doubtful":
            commas = ", or write decimal points if the commas are decimal" if width == 2 else ""
            raise DataError(
                f"{path}: column {position} has no name and does not number the rows: "
                f"name it, or choose columns (columns= or --columns){commas}."
            )
        if verdict == "count":
            notes.append(f"{what} numbers the rows and is left out (columns= or --columns overrules this).")
            left_out.append(position)
        if verdict == "kept":
            notes.append(f"{what} {kept}")
        if verdict != "count" or names is None:
            break
    others = range(last + 1, width if len(lines) >= ENOUGH_TO_COUNT and width > 1 else 0)
    counts = [position for position in others if _counts_by_one(line[position] for line in lines)]
    return left_out, notes + [f"{_column(i, None if names is None else names[i])} {kept}" for i in counts]


def _column(position, name):
    return f"Column {position}" + (f", {name!r}," if name else ", without a name,")


def _counts_by_one(cells):
    """Whether the cells are numbers, each the one before plus 1; reads no further than it must."""
    expected = None
    for cell in cells:
        value = number(cell)
        if value is None or value + 1 == value or value != (value if expected is None else expected):
            return False  # no number, one that float64 cannot add 1 to, or another
        expected = value + 1
    return expected is not None


def _index(name, cells):
    """What a column is: "count", "doubtful", "kept" (a count by its look, with a name) or "feature"."""
    nameless = name is not None and (not name or re.fullmatch(r"Unnamed: \d+(\.\d+)*", name))
    values = [value for cell in cells if (value := number(cell)) is not None]
    if len(values) < len(cells):
        return "feature"
    runs = _counts_by_one(cells)
    differ = len(set(values)) == len(values) and all(value.is_integer() for value in values)
    if name is None:
        whole, enough = all(map(_is_whole, cells)), len(cells) >= ENOUGH_TO_COUNT
        if runs and whole and values[0] in (0, 1):
            return "count"
        grows = whole and all(value < later for value, later in itertools.pairwise(values))
        return "kept" if enough and (runs or grows) else "feature"
    if nameless:
        return "count" if differ else "doubtful"
    if name.lower() in INDEX_NAMES:
        return "count" if runs else "kept" if differ else "feature"
    return "kept" if runs else "feature"


def positions_of(path, columns, names, width):
    """Positions of the columns that a user names: by their names first, else by positions from 0.

    Raises:
      DataError: there is no such column, its name occurs twice, or it is asked for twice.
    """
    positions = []
    for one in columns:
        if names is not None and isinstance(one, str) and one in names:
            if names.count(one) > 1:
                raise DataError(f"{path}: {names.count(one)} columns are named {one!r}: give positions from 0.")
            positions.append(names.index(one))
        elif str(one).isascii() and str(one).isdigit() and int(one) < width:
            positions.append(int(one))
        else:
            there = f"its columns are {_shown(names)}" if names is not None else "it has no names"
            raise DataError(f"{path} has no column {one!r}: {there}; positions go from 0 to {width - 1}.")
    if len(set(positions)) < len(positions) or not positions:
        raise DataError(f"{path}: columns {list(columns)} name one column twice, or none: give each once.")
    return positions


def _shown(cells):
    """Cells for a message, at most eight."""
    return ",".join([*cells[:8], *(["..."] if len(cells) > 8 else [])])
