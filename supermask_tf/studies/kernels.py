"""Kernels for notebooks that run side by side: a study's runs, the pages of the book. No
TensorFlow.
"""

import os
import sys
import tempfile
import uuid

import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import default

__all__ = ["KernelManager"]


class KernelManager(AsyncKernelManager):
    """Runs a notebook in this Python, whatever kernel the notebook names.

    Jupyter would take the first kernel of that name on its path (JUPYTER_PATH,
    ~/.local/share/jupyter, ...), which may be another environment's: without this package, or with
    another edition of it.

    It reaches its kernel through sockets in the folder for temporary files, where the system has
    such sockets.

    Jupyter's own takes free TCP ports, lets go of them and leaves it to the kernel to bind them, so
    that another kernel that starts at this moment may get them first: "Kernel died before replying
    to kernel_info" (https://github.com/nteract/papermill/issues/511). Of 320 kernels started by 8
    processes on two cores two died of it.
    """

    @default("transport")
    def _transport_default(self) -> str:
        folder = len(os.fsencode(tempfile.gettempdir()))
        return "ipc" if os.name == "posix" and folder + 25 < zmq.IPC_PATH_MAX_LEN else "tcp"

    def _ip_default(self) -> str:
        # Not Jupyter's choice, which is the same for all and taken from the folder where each side
        # happens to run.
        return (
            os.path.join(tempfile.gettempdir(), f"kernel-{uuid.uuid4().hex[:12]}")
            if self.transport == "ipc"
            else super()._ip_default()
        )

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
        )
