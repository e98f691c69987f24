"""Importing jaxdiff: no backend, no heavy library, and callables that stay callables."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

import jaxdiff

ROOT = pathlib.Path(__file__).parents[1]
LATER = ("flax", "optax", "orbax", "matplotlib", "sklearn", "tqdm", "safetensors")


def run_fresh(code):
    """What a new interpreter prints, default JAX settings, this checkout first on the path."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = plain | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# jax.distributed.initialize itself raises if a backend is there already.
def test_importing_initialises_no_backend_and_loads_no_heavy_library():
    code = f"""
import sys, jaxdiff
heavy = [name for name in {LATER} if name in sys.modules]
import jax
jax.distributed.initialize("127.0.0.1:{free_port()}", num_processes=1, process_id=0)
print(len(heavy), jax.process_count(), len(jax.devices()) > 0, *heavy)
"""
    assert run_fresh(code) == ["0", "1", "True"]


def test_the_verbs_stay_callable_whatever_is_imported_afterwards():
    code = """
import jaxdiff
jaxdiff.train.fit
import jaxdiff.sampling.sample, jaxdiff.planning.plan, jaxdiff.guarantees.certify
from jaxdiff.app.run_folder import load
from jaxdiff import *
verbs = ("sample", "plan", "certify")
print(*(callable(getattr(jaxdiff, name)) and getattr(jaxdiff, name) is globals()[name] for name in verbs))
"""
    assert run_fresh(code) == ["True"] * 3


@pytest.mark.parametrize("name", jaxdiff.__all__)
def test_every_public_name_resolves(name):
    assert getattr(jaxdiff, name) is not None


def test_public_names_are_listed_once():
    assert len(set(jaxdiff.__all__)) == len(jaxdiff.__all__)
    assert {"sample", "plan", "certify", "kernels", "train"} <= set(jaxdiff.__all__)


def test_an_unknown_name_is_an_attribute_error_that_says_so():
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        jaxdiff.sampel  # noqa: B018
    assert not hasattr(jaxdiff, "nothing")
