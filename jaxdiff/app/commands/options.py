"""Common parts of the commands: the help texts with defaults, and the check of a seed."""

import argparse


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help texts that show the default of every argument that has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def check_seed(seed):
    """Raise ValueError unless a seed is a whole number of 32 bits."""
    from jaxdiff.checks import MOST_SEED  # here, because jaxdiff.checks imports JAX and --help must not wait for it

    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed must lie between 0 and 2^32 - 1: seed = {seed}.")
