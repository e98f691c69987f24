"""The error of data that cannot be used."""


class DataError(ValueError):
    """The data cannot be used; the message names the value that came and the remedy."""
