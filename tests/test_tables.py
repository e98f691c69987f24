"""Rows as a table to read."""

from jaxdiff import tables


def test_a_table_is_aligned_with_numbers_to_the_right():
    rows = [{"method": "scan", "median_ms": 1234.5, "n": 7}, {"method": "a", "median_ms": 0.012345, "note": "x"}]
    assert tables.table(rows, ["method", "median_ms", "n", "note"]).splitlines() == [
        "| method | median ms |   n | note |",
        "| ------ | --------: | --: | ---- |",
        "| scan   |      1234 |   7 |      |",
        "| a      |   0.01235 |     | x    |",
    ]


def test_without_columns_all_are_shown_in_the_order_they_come():
    assert tables.table([{"b": 1}, {"a": "x", "b": 2}]).splitlines()[0] == "|   b | a   |"
