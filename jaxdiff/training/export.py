"""Networks as safetensors files: NumPy, PyTorch and other libraries read their tensors without jaxdiff."""

import importlib
import json
import os
import pathlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff.files import to_json, written

Network = TypeVar("Network", bound=nnx.Module)
NETWORKS = "jaxdiff.training.networks"  # only classes of this package are built from the name in a file
DTYPES = {"bool", "float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))}

__all__ = ["export_safetensors", "import_safetensors", "load_safetensors"]


def export_safetensors(network: nnx.Module, path: str | os.PathLike, about: dict[str, Any]) -> None:
    """Write a network's variables as a safetensors file. An older file at `path` is replaced when the new one is done.

    Each tensor is named by the path of its variable, such as "enter.kernel", and has the layout of Flax: the kernel of
    a linear layer is (in, out). `safetensors.numpy.load_file` reads the file too.

    Args:
      network: its variables must be arrays; typed JAX keys are refused.
      path: the file to write.
      about: the arguments of the network's constructor except `rngs`, as JSON data. The file's metadata holds them and
        the name of the class, so that `load_safetensors` can build the network from the file alone.

    Raises:
      ImportError: the package safetensors is missing.
      ValueError: a variable has a dtype that NumPy's safetensors lack, or `about` is not JSON data of finite numbers.
      OSError: the file cannot be written.
    """
    save_file = _safetensors().numpy.save_file
    tensors = {}
    for name, value in _named(nnx.state(network)):
        if str(value.dtype) not in DTYPES:
            raise ValueError(f"{name} holds {value.dtype}, which safetensors of NumPy lack: convert it to float32.")
        tensors[name] = np.array(value, order="C")
    try:
        text = to_json(about)
    except TypeError as error:
        raise ValueError(f"about must be JSON data, the arguments of the constructor: {error}.") from None
    metadata = {"class": f"{type(network).__module__}.{type(network).__qualname__}", "about": text}
    with written(path) as draft:
        try:
            save_file(tensors, draft, metadata=metadata)
        except _safetensors().SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}.") from error


def import_safetensors(network: Network, path: str | os.PathLike) -> Network:
    """A copy of the given network with the tensors of a safetensors file.

    Raises:
      ImportError: the package safetensors is missing.
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or a tensor is missing, not expected, or of another shape or dtype.
    """
    tensors, _ = _read(path)
    graph, state = nnx.split(network)
    wanted = dict(_named(state))
    for names, told in (
        (wanted.keys() - tensors.keys(), "lacks"),
        (tensors.keys() - wanted.keys(), "has, and this network lacks,"),
    ):
        if names:
            raise ValueError(f"{path} {told} the tensor {min(names)}: give a network as it was when it was exported.")
    for name, value in wanted.items():
        for what in ("shape", "dtype"):
            there, here = getattr(tensors[name], what), getattr(value, what)
            if there != here:
                raise ValueError(f"{name} has {what} {there} in {path}, {here} in this network: build it as it was.")
    leaves = [jnp.asarray(tensors[name]) for name in wanted]
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))


def load_safetensors(path: str | os.PathLike) -> nnx.Module:
    """The network in a safetensors file that `export_safetensors` wrote; its class must be one of `jaxdiff.networks`.

    Raises:
      ImportError: the package safetensors is missing.
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or does not say how to build a network of jaxdiff.
    """
    _, metadata = _read(path)
    module, _, name = metadata.get("class", "").rpartition(".")
    networks = importlib.import_module(NETWORKS)
    if not module.startswith(f"{NETWORKS}.") or name not in networks.__all__:
        raise ValueError(
            f"{path} holds no network of jaxdiff (class {metadata.get('class', 'unknown')!r}): build the network "
            "yourself and call import_safetensors(network, path)."
        )
    try:
        network = getattr(networks, name)(**json.loads(metadata["about"]), rngs=nnx.Rngs(0))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say how to build its {name}: {error}. Call import_safetensors.") from error
    return import_safetensors(network, path)


def _named(state):
    """(name, array) of every variable of a state."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return [(jax.tree_util.keystr(path, simple=True, separator="."), value) for path, value in leaves]


def _read(path):
    """The tensors by name, and the metadata of a file."""
    package, path = _safetensors(), pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file: export a network there with export_safetensors.")
    try:
        with package.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (package.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}.") from error


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("export needs the package safetensors: pip install 'jaxdiff[export]'.") from error
    return safetensors
