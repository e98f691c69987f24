"""Data sets: files, folders, arrays and built-in ones, checked, labelled, standardised and split."""

from jaxdiff.app.data.dataset import FURTHEST, IMAGE_SHAPES, LEAST_ROWS, UNREAD, Dataset, Reading, covariance, split
from jaxdiff.app.data.labels import Labels
from jaxdiff.app.data.loading import BUILT_IN, ENDINGS, load
from jaxdiff.app.data.scales import ColumnScale, PixelScale
from jaxdiff.app.data.scans import channel_moments, moments
from jaxdiff.app.data.views import View
from jaxdiff.app.errors import DataError

__all__ = [
    "BUILT_IN",
    "ENDINGS",
    "FURTHEST",
    "IMAGE_SHAPES",
    "LEAST_ROWS",
    "UNREAD",
    "ColumnScale",
    "DataError",
    "Dataset",
    "Labels",
    "PixelScale",
    "Reading",
    "View",
    "channel_moments",
    "covariance",
    "load",
    "moments",
    "split",
]
