"""Are the random words behind the noise random?

Streams them, in the order in which samplers use them, to a battery of tests:

    python -m benchmarks.noise_words | dieharder -g 200 -a        # an hour; -d 0 for one test

(dieharder is a package of Debian and Ubuntu.) The order is by pair of steps, then 4,096 particles by 64 coordinates,
then the two words of a block.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise

PARTICLES, COORDINATES = 4096, 64


@jax.jit
def words(keys, block):
    """The words of every particle and coordinate at one block of the counter: (particles, coordinates, 2)."""
    index = jnp.arange(COORDINATES, dtype=jnp.uint32) + jnp.uint32(noise.STEPS * noise.MOST_COORDINATES)
    counter = jnp.broadcast_arrays(block, index)
    return jnp.stack(noise.threefry2x32(tuple(word[:, None] for word in keys), counter), axis=-1)


def main():
    keys = noise.particle_keys(jax.random.key(0), jnp.arange(PARTICLES))
    for block in range(2**31):
        try:
            sys.stdout.buffer.write(np.asarray(words(keys, jnp.uint32(block))).tobytes())
        except BrokenPipeError:  # the battery has seen enough; the interpreter must not flush what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


if __name__ == "__main__":
    main()
