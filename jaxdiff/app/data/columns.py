"""Which columns of a table are read: those that the user names, or all but an index of the rows."""

import itertools
import re

from jaxdiff.app.data.cells import ENOUGH_TO_COUNT, counts_by_one, is_whole, number, shown
from jaxdiff.app.errors import DataError

INDEX_NAMES = ("index", "id", "row", "no", "nr", "#", "level_0")  # names under which programs write an index


def index_columns(path, names, lines):
    """Positions of the leading columns that number the rows, which are left out, and notes on what was assumed.

    One of these is left out, as long as another column remains:

    - A first column without a name, or named "Unnamed: 0", whose whole numbers are all different. pandas and R write
      such an index.
    - A column named index, id, row, no, nr, # or level_0 that counts by one.
    - In a table without names, a column that is written 0, 1, 2, ... or 1, 2, 3, ... to its end.

    Any other column that counts by one is kept, and a note says so. The same is true of a first column of growing whole
    numbers in a table without names.

    Raises:
      DataError: the first column of a table with names has none, and its numbers repeat or are not whole.
    """
    left_out, notes = [], []
    width = len(names if names is not None else lines[0] if lines else ())
    kept = "may number the rows and is kept: columns= or --columns leaves it out."
    last = -1  # position of the last leading column that may be an index
    for position in range(width - 1 if len(lines) > 1 else 0):
        name = None if names is None else names[position]
        verdict, last = kind_of_column(name, [line[position] for line in lines]), position
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
    counts = [position for position in others if counts_by_one(line[position] for line in lines)]
    return left_out, notes + [f"{_column(i, None if names is None else names[i])} {kept}" for i in counts]


def _column(position, name):
    return f"Column {position}" + (f", {name!r}," if name else ", without a name,")


def kind_of_column(name, cells):
    """Whether a column numbers the rows: "count" (yes), "kept" (it may), "doubtful" (an error) or "feature" (no)."""
    nameless = name is not None and (not name or re.fullmatch(r"Unnamed: \d+(\.\d+)*", name))
    values = [value for cell in cells if (value := number(cell)) is not None]
    if len(values) < len(cells):
        return "feature"
    runs = counts_by_one(cells)
    differ = len(set(values)) == len(values) and all(value.is_integer() for value in values)
    if name is None:
        whole, enough = all(map(is_whole, cells)), len(cells) >= ENOUGH_TO_COUNT
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
    """Positions of the columns that a user lists, by name or by position from 0; names come first.

    Raises:
      DataError: there is no such column, its name occurs twice, or it is listed twice.
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
            there = f"its columns are {shown(names)}" if names is not None else "it has no names"
            raise DataError(f"{path} has no column {one!r}: {there}; positions go from 0 to {width - 1}.")
    if len(set(positions)) < len(positions) or not positions:
        raise DataError(f"{path}: columns {list(columns)} name one column twice, or none: give each once.")
    return positions
