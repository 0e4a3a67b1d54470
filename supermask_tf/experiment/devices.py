"""How several devices share a run, and what this machine is. TensorFlow is imported when it is
asked.
"""

import atexit
import functools
import json
import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ground import machine as ground_machine
from .checkpoints import Checkpoints
from .parameters import Experiment

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["agreed", "is_chief", "machine", "strategies", "strategy_and_place"]


def is_chief() -> bool:
    """Whether this process keeps the record of a multi_worker run: the chief, or the first
    worker.
    """
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {})
    if task.get("type", "chief") == "chief":
        return True
    return task.get("index", 0) == 0 and not config.get("cluster", {}).get("chief")


@functools.cache  # TensorFlow connects the machines of a multi_worker run once per process
def strategies(name: str | None) -> "tf.distribute.Strategy":
    """The `tf.distribute` strategy of that name; the default one for None.

    Raises:
        ValueError: if TF_CONFIG is missing where it is needed.
    """
    import tensorflow as tf

    if name == "multi_worker" and not os.environ.get("TF_CONFIG"):
        raise ValueError(
            "strategy='multi_worker' needs TF_CONFIG in the environment of each worker: set it (the"
            " book's page on scale shows how), or give strategy='mirrored' for one machine."
        )
    makers = {
        None: tf.distribute.get_strategy,
        "mirrored": tf.distribute.MirroredStrategy,
        "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
    }
    return makers[name]()


def strategy_and_place(
    experiment: Experiment, place: Path
) -> "tuple[tf.distribute.Strategy, Path]":
    """How the devices share the work, and where this process writes its record.

    Every worker writes a record; only the chief's is kept.

    Raises:
        ValueError: if the batch has no equal part for each replica, or TF_CONFIG is missing.
    """
    strategy = strategies(experiment.strategy)
    replicas = strategy.num_replicas_in_sync
    if experiment.batch_size % replicas:
        raise ValueError(
            f"batch_size={experiment.batch_size} has no equal parts for {replicas} replicas "
            f"(strategy={experiment.strategy!r}): give a multiple of {replicas}."
        )
    if experiment.strategy == "multi_worker" and not is_chief():
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        place = folder / place.name
    return strategy, place


def agreed(found: Any, saved: Checkpoints, strategy: "tf.distribute.Strategy") -> Any:
    """`found`, if all workers of a multi_worker run found the same epoch.

    Where they see different disks none goes on alone.
    """
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or strategy.cluster_resolver is None:
        return found
    epoch = tf.constant(float(saved.epoch))

    def sums():
        context = tf.distribute.get_replica_context()
        return [context.all_reduce("sum", value) for value in (epoch, epoch**2)]

    total, square = (
        float(strategy.experimental_local_results(value)[0]) for value in strategy.run(sums)
    )
    if total**2 == square * replicas:
        return found
    print("The workers do not see the same checkpoints: the run begins anew.")
    saved.clear()
    return None


def machine() -> dict[str, Any]:
    """The versions, the processor and the threads: what decides the last bits of a result."""
    import tensorflow as tf

    from .. import __version__

    asked = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))
    threads = tf.config.threading.get_intra_op_parallelism_threads() or asked
    return {
        "processor": ground_machine.processor(),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
        "threads": threads or ground_machine.cores(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1",
        "versions": {
            "supermask_tf": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            # Legacy Keras beside a newer TensorFlow tells its own version; that of 2.15 tells none.
            "keras": getattr(tf.keras, "__version__", None) or metadata.version("keras"),
            "numpy": np.__version__,
        },
    }
