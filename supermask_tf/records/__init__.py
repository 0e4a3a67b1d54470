"""A run's folder: writing it safely, reading many as tidy pandas frames. No TensorFlow.

A run is a folder, complete or absent. What a record holds is said in the book's chapter "How to run
it again". ::

    runs = load_runs("runs/first")
    runs.summary, runs.history, runs.utilisation     # one row per run, per epoch, per masked kernel
    model = runs[0].load_model()
"""

from .reading import (
    BEFORE,
    Run,
    RunSet,
    fingerprint,
    load_runs,
    read_table,
    unpack_bits,
)
from .tasks import TasksRecord, load_tasks
from .writing import (
    attach_notebook,
    check_writable,
    lock,
    pack_run,
    unpack_run,
    write_run,
    write_weights,
)

__all__ = [
    "Run",
    "RunSet",
    "TasksRecord",
    "load_runs",
    "load_tasks",
    "read_table",
    "write_run",
]
