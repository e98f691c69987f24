"""Tables in Parquet files."""

import numpy as np

from jaxdiff.app.data.columns import positions_of
from jaxdiff.app.data.delimited import Table
from jaxdiff.app.errors import DataError
from jaxdiff.files import brief


def read(path, *, columns=None, labels=None) -> Table:
    """The numbers of a Parquet file; see `delimited.read` for the arguments.

    A column "__index_level_0__", the index of pandas, is left out, and a note says so.

    Raises:
      DataError: pyarrow is missing, the file cannot be read, or a column that is read holds no numbers.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(f"{path} is read by pyarrow, which is not installed: pip install 'jaxdiff[data]'.") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, types = list(file.schema_arrow.names), list(file.schema_arrow.types)
            label = None if labels is None else positions_of(path, [labels], names, len(names))[0]
            positions, notes = _positions(path, names, columns, label)
            _check_types(path, names, types, positions)
            wanted = [*positions, *([] if label is None else [label])]
            table = file.read(columns=[names[i] for i in wanted])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file ({brief(error)}): write it with DataFrame.to_parquet.") from error
    arrays = [table.column(i).to_numpy().astype(np.float64) for i in range(len(positions))]
    rows = np.column_stack(arrays) if arrays else np.zeros((table.num_rows, 0))
    raw = None if label is None else np.array(table.column(len(positions)).to_pylist())
    return Table(rows, None, tuple(positions), tuple(names[i] for i in positions), notes, raw)


def _positions(path, names, columns, label):
    if len(set(names)) < len(names):
        raise DataError(f"{path} has two columns of one name, among {names}: rename one.")
    if columns is not None:
        return [i for i in positions_of(path, columns, names, len(names)) if i != label], ()
    index = [i for i, name in enumerate(names) if name.startswith("__index_level_")]
    notes = tuple(f"Column {names[i]!r} is the index of pandas and is left out." for i in index)
    return [i for i in range(len(names)) if i not in index and i != label], notes


def _check_types(path, names, types, positions):
    """Raise DataError for the first column to be read that does not hold real numbers."""
    import pyarrow.types as kinds  # pyright: ignore[reportMissingImports]

    for i in positions:
        if not (kinds.is_integer(types[i]) or kinds.is_floating(types[i]) or kinds.is_boolean(types[i])):
            raise DataError(
                f"{path}: column {names[i]!r} holds {types[i]}, not numbers: encode or drop it, leave it out (columns= "
                f"or --columns), or if it holds classes, name it as labels= or --labels."
            )
