"""What the commands share: how defaults are shown, and the check of a seed."""

import argparse


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every argument that has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def check_seed(seed):
    """Raise ValueError unless a seed fits into 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and 2^32 - 1: seed = {seed}.")
