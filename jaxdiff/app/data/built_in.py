"""Data sets that ship inside scikit-learn, with their labels."""

from typing import NamedTuple

import numpy as np

from jaxdiff.app.errors import DataError

PATCH = 8  # pixels, the sides of a patch


class BuiltIn(NamedTuple):
    """A data set: its rows or images, the class of each, the names of the classes and of the columns."""

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    columns: tuple[str, ...] | None = None


def _digits(datasets):
    rows, labels = datasets.load_digits(return_X_y=True)
    return BuiltIn(np.asarray(rows), labels, tuple(map(str, range(10))))


def _digit_images(datasets):
    """The digits as images (n, 8, 8) of values from 0 to 16."""
    one = _digits(datasets)
    return one._replace(rows=one.rows.reshape(-1, 8, 8))


def _table(name):
    def load(datasets):
        one = getattr(datasets, f"load_{name}")()
        columns = tuple(map(str, one.feature_names))
        return BuiltIn(np.asarray(one.data), one.target, tuple(map(str, one.target_names)), columns)

    return load


def _patches(datasets):
    """Colour patches of two photographs, which are the classes: side by side, without overlap."""
    photographs = datasets.load_sample_images()
    patches, labels = [], []
    for label, photograph in enumerate(photographs.images):
        rows, columns = (size // PATCH for size in photograph.shape[:2])
        tiles = photograph[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
        patches.append(tiles.transpose(0, 2, 1, 3, 4).reshape(-1, PATCH, PATCH, 3))
        labels += [label] * len(patches[-1])
    names = tuple(str(name).removesuffix(".jpg") for name in photographs.filenames)
    return BuiltIn(np.concatenate(patches), np.array(labels), tuple(name.split("/")[-1] for name in names))


LOADERS = {
    "digits": _digits,
    "digit_images": _digit_images,
    "wine": _table("wine"),
    "breast_cancer": _table("breast_cancer"),
    "patches": _patches,
}


def built_in(name: str) -> BuiltIn:
    """The data set of that name. Raises DataError if scikit-learn, or Pillow for the patches, is missing."""
    try:
        from sklearn import datasets

        return LOADERS[name](datasets)
    except ImportError as error:
        raise DataError(f"{name} ships inside scikit-learn: pip install 'jaxdiff[data]'.") from error
