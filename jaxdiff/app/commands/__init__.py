"""The commands of `jaxdiff`, one a file: `add` declares the arguments of a command, `run` carries it out."""
