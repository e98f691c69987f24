"""`python -m jaxdiff` runs the command `jaxdiff`."""

from jaxdiff.app.cli import program

program()
