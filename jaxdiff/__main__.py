"""`python -m jaxdiff` is the command `jaxdiff`."""

from jaxdiff.app.cli import program

program()
