"""XLA programs run by JAX: the one place that knows names of JAX which are not a stable interface.

A program takes arrays on the device and gives arrays on the device, not waited for::

    program = Program(Path("train.hlo").read_bytes(), "train.hlo")
    outputs = program([x, y, kernel, bias])
"""

import os
import platform
from typing import Any

from ..ground import machine as ground_machine

__all__ = ["Program", "load_jax", "machine"]

WORKS = "0.6.2 to 0.12.0"  # with Python 3.11 and 3.12


def load_jax():
    """The module `jax` with 64-bit types, since Keras counts its steps in 64 bits.

    Raises:
        ImportError: if there is none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # jaxlib reports its start at length
    try:
        import jax
    except ImportError as error:
        raise ImportError(
            f"Running a bundle needs JAX ({WORKS}): install it for your device, such as with `pip"
            " install jax`, or jax[cuda12] for NVIDIA GPUs."
        ) from error
    jax.config.update("jax_enable_x64", True)
    return jax


class Program:
    """A serialized HLO module, compiled for the first device that JAX finds.

    Args:
        hlo: the module's bytes.
        name: what to call it in an error.

    Raises:
        ImportError: if JAX is missing, or of a version without the names that this takes.
        ValueError: if the bytes are no HLO module.
    """

    def __init__(self, hlo: bytes, name: str):
        jax = load_jax()
        device = jax.devices()[0]
        try:
            from jaxlib import _jax as native
            from jaxlib.xla_client import XlaComputation

            to_mlir, devices, options = (
                native.mlir.xla_computation_to_mlir_module,
                native.DeviceList((device,)),
                native.CompileOptions(),
            )
            compile_and_load = device.client.compile_and_load
        except (ImportError, AttributeError, TypeError) as error:
            raise ImportError(
                f"JAX {jax.__version__} lacks what running a bundle takes ({error}): install one of"
                f" {WORKS}."
            ) from error
        try:
            module = to_mlir(XlaComputation(hlo))
        except Exception as error:  # jaxlib raises classes of its own
            raise ValueError(
                f"{name} is no XLA program ({str(error).splitlines()[0][:200]}): export the bundle"
                " again."
            ) from error
        self._executable = compile_and_load(module, devices, options)

    def __call__(self, arguments: list[Any]) -> list[Any]:
        """Run it; an argument that an output replaces is gone afterwards.

        Args:
            arguments: arrays on the device, in the program's order.
        """
        return [
            shards[0]
            for shards in self._executable.execute_sharded(
                arguments
            ).disassemble_into_single_device_arrays()
        ]


def machine() -> dict[str, Any]:
    """The device, its processor and the versions: what decides the last bits of a result, under the
    names of a record.
    """
    jax = load_jax()
    import jaxlib
    import numpy

    device = jax.devices()[0]
    processor = device.device_kind
    if device.platform == "cpu":
        processor = ground_machine.processor()
    return {
        "runtime": "xla",
        "processor": processor,
        "devices": [device.platform.upper()],
        "threads": ground_machine.cores(),
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
        },
    }
