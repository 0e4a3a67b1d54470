"""What the Dask workers of the tests load: runs train in the worker itself, without a notebook, and
write a log.

SUPERMASK_TEST_LOG names the log: a line "start <run> <pid>" and a line "end <run> <pid>" for each
training. SUPERMASK_TEST_FAR, if set, hides the client's disk, as on another machine.
"""

import os
import time
from pathlib import Path

from supermask_tf import cluster
from supermask_tf.records import Run


def run_notebook(experiment, directory, output=None, cwd=None) -> Run:
    def log(what):
        with open(os.environ["SUPERMASK_TEST_LOG"], "a") as file:
            file.write(f"{what} {experiment.name} {os.getpid()}\n")

    log("start")
    time.sleep(0.7)  # room for a kill
    run = experiment.run(directory, progress=False)
    (run.path / "notebook.ipynb").write_text(
        str(
            {
                name: os.environ.get(name)
                for name in ("TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")
            }
        )
    )
    log("end")
    return run


cluster.run_notebook = run_notebook

if os.environ.get("SUPERMASK_TEST_FAR"):
    Path.exists = lambda self: not self.name.startswith(".client-") and os.path.exists(self)
