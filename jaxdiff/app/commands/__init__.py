"""The commands of `jaxdiff`, one in each file: `add` declares the arguments of a command, and `run` executes it."""
