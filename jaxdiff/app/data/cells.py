"""Cells of a text file: which are numbers, which are written as whole numbers, and which count by one."""

MINUS = "\u2212"  # the typographic minus sign
FORTRAN = r"[+-]?(\d+[.,]?\d*|[.,]\d+)[dD][+-]?\d+"  # pattern of a double-precision number as Fortran writes it
ENOUGH_TO_COUNT = 5  # so many cells that count by one (1, 2, 3, ...) are taken for row numbers; fewer may be data


def number(cell):
    """The number that a cell is, or None; a decimal comma and a typographic minus sign count, "1_000" does not."""
    plain = cell.replace(MINUS, "-")
    try:
        return None if "_" in plain else float(plain.replace(",", ".", 1) if "." not in plain else plain)
    except ValueError:
        return None


def is_whole(cell):
    """Whether the cell is written as 0, 1, 2, ...: without sign, point or exponent."""
    cell = cell.strip()
    return cell.isascii() and cell.isdigit()


def is_signed(cell):
    """Whether the cell is written as a whole number, with or without a sign."""
    return is_whole(cell.strip().removeprefix("+").removeprefix("-"))


def counts_by_one(cells):
    """Whether the cells are numbers, each the one before plus 1. Reads no cell after the first that is not."""
    expected = None
    for cell in cells:
        value = number(cell)
        if value is None or value + 1 == value or value != (value if expected is None else expected):
            return False  # no number, a number too large for float64 to add 1, or not the one before plus 1
        expected = value + 1
    return expected is not None


def shown(cells):
    """Cells for a message, at most eight."""
    return ",".join([*cells[:8], *(["..."] if len(cells) > 8 else [])])
