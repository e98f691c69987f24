"""A training loop that goes on from its last checkpoint: python resumable_loop.py FOLDER STEPS. Prints the last bits.

SIGTERM makes it save and end with exit code 143. It is the smallest program of the kind that `jaxdiff train --resume`
is, and shows what a checkpoint must hold: parameters, optimiser, average, key and losses.
"""

import hashlib
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.training.checkpoints import Checkpoints

EVERY = 10  # steps between checkpoints
OPTIMISER = optax.adam(1e-2)


def start():
    params = {"kernel": jnp.zeros((4, 3), jnp.float32), "bias": jnp.zeros(3, jnp.float32)}
    return {
        "params": params,
        "optimiser": OPTIMISER.init(params),
        "average": params,
        "key": jax.random.key(0),
        "losses": np.zeros(8),
    }


@jax.jit
def advance(state):
    """The state after one step, and the loss of its batch."""
    key, batch = jax.random.split(state["key"])
    x = jax.random.normal(batch, (16, 4), jnp.float32)

    def loss_of(params):
        return jnp.mean((x @ params["kernel"] + params["bias"] - jnp.sin(x[:, :3])) ** 2)

    loss, slope = jax.value_and_grad(loss_of)(state["params"])
    change, optimiser = OPTIMISER.update(slope, state["optimiser"])
    params = optax.apply_updates(state["params"], change)
    average = jax.tree.map(lambda old, new: old + (new - old) / 16, state["average"], params)
    return {"params": params, "optimiser": optimiser, "average": average, "key": key}, loss


def main(folder, steps):
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    with Checkpoints(folder) as checkpoints:
        step, state = checkpoints.restore(start()) if checkpoints.steps() else (0, start())
        while step < steps and not stopped:
            losses = state.pop("losses")
            state, loss = advance(state)
            losses[step % len(losses)] = float(loss)
            state, step = state | {"losses": losses}, step + 1
            if step % EVERY == 0 or stopped:
                checkpoints.save(step, state, held_out_loss=float(losses.mean()))
            time.sleep(0.002)
        if stopped:
            checkpoints.save(step, state)
    if stopped:
        sys.exit(128 + stopped[0])
    leaves = [jax.random.key_data(state.pop("key")), *jax.tree.leaves(state)]
    print(hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
