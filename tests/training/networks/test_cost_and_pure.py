"""The cost of a network against a count by hand; a pure function as a network, alone and in fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.training.fit import fit
from jaxdiff.training.networks import PureNetwork, ResidualMLP, UNet, describe, flops, parameters

PARAMS = {"gain": np.float32([1.0, 2.0]), "shift": {"by": np.float32(0.5)}, "labels": np.int32(3)}


class Layer(nnx.Module):
    """A layer that ignores the time."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x, t):
        return self.layer(x)


def apply(params, x, t):
    return params["gain"] * x + params["shift"]["by"] * jnp.exp(-t)[..., None]


def test_flops_are_those_counted_by_hand():
    linear = Layer(nnx.Linear(7, 5, use_bias=False, rngs=nnx.Rngs(0)))
    assert (parameters(linear), flops(linear, (7,))) == (35, 2 * 7 * 5)
    # Without padding a convolution has (8 - 2)^2 places, with 3 x 3 x 2 products of 4 channels each.
    conv = Layer(nnx.Conv(2, 4, (3, 3), padding="VALID", use_bias=False, rngs=nnx.Rngs(0)))
    assert (parameters(conv), flops(conv, (8, 8, 2))) == (9 * 2 * 4, 2 * 6 * 6 * 9 * 2 * 4)


def test_the_matrix_products_dominate_the_count_of_a_network():
    d, width, depth = 64, 256, 3
    products = 2 * (2 * d * width + 2 * d * d + 32 * width + depth * 4 * width * width)
    counted = flops(ResidualMLP(d, width=width, depth=depth, rngs=nnx.Rngs(0)), (d,))
    assert products < counted < 1.05 * products


def test_a_network_is_described_in_a_line():
    text = describe(ResidualMLP(1, width=1, depth=0, rngs=nnx.Rngs(0)), (1,))
    assert text.startswith("residual MLP, 37 parameters, ")  # 2 + 33 + 2
    assert text.endswith("FLOPs a call")
    assert "U-Net, 1" in describe(UNet((4, 4, 1), width=12, rngs=nnx.Rngs(0)), (4, 4, 1))


def test_a_pure_function_keeps_its_tree():
    net = PureNetwork(apply, PARAMS)
    assert jax.tree.all(jax.tree.map(np.array_equal, net.params, PARAMS))
    assert parameters(net) == 3  # whole numbers are not trained
    x, t = jnp.ones((4, 2), jnp.float32), jnp.float32([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(net(x, t), apply(PARAMS, x, t))
    with pytest.raises(ValueError, match="this function takes no labels"):
        net(x, t, jnp.zeros(4, jnp.int32))


def test_labels_and_key_are_passed_on_to_a_function_that_takes_them():
    seen = []
    taking = lambda params, x, t, condition, *, key=None: seen.append((condition, key)) or x
    x = jnp.ones((2, 2))
    PureNetwork(taking, PARAMS)(x, 0.1, "labels", key="key")
    PureNetwork(taking, PARAMS)(x, 0.1)
    assert seen == [("labels", "key"), (None, None)]
    with pytest.raises(TypeError, match=r"apply must be called as apply\(params, x, t\)"):
        PureNetwork(lambda x: x, PARAMS)
    with pytest.raises(TypeError, match="apply must be a function"):
        PureNetwork(PARAMS, PARAMS)


# The data are one point, which is the best denoiser: shift e^-t is not, so that gain and shift both have to move.
@pytest.mark.loose_promotion
def test_a_pure_function_trains_through_fit(key):
    rows = np.tile(np.float32([1.0, -1.0]), (64, 1))
    constant = lambda params, x, t: jnp.broadcast_to(params["point"], x.shape)
    network = PureNetwork(constant, {"point": np.float32([0.0, 0.0])})
    trained = fit(network, rows, key, steps=300, batch_size=16, learning_rate=0.05, weight_decay=0.0, ema_decay=0.0)
    np.testing.assert_allclose(trained.network.params["point"], [1.0, -1.0], atol=0.02)
