"""Kernels of the book's pages, as forks of the process that builds it.

So pandas, matplotlib and the package are imported once, and not again for each page: that takes
four seconds of a core.
"""

import asyncio
import importlib
import os
import pkgutil
from importlib.metadata import EntryPoint
from multiprocessing import get_context
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from supermask_tf.paper import pages
from supermask_tf.studies import kernels

__all__ = ["KernelManager", "prepare"]

_NAME = "supermask-fork"


def prepare() -> None:
    """Import what the pages use, and make the forks known to Jupyter."""
    for module in ("ipykernel.kernelapp", "matplotlib.pyplot", "seaborn"):
        importlib.import_module(module)
    for module in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}."):
        importlib.import_module(module.name)
    entry = EntryPoint(_NAME, f"{__name__}:Provisioner", KernelProvisionerFactory.GROUP_NAME)
    KernelProvisionerFactory.instance().provisioners[_NAME] = entry


class KernelManager(kernels.KernelManager):
    """Runs a page in a fork of this process; where there are no forks, in a process of its own."""

    @property
    def kernel_spec(self) -> KernelSpec:
        spec = super().kernel_spec
        if hasattr(os, "fork"):
            spec.metadata = {"kernel_provisioner": {"provisioner_name": _NAME}}
        return spec


class Provisioner(LocalProvisioner):
    """Jupyter's local one, whose process is a fork that runs the kernel's command."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        python, dash_m, launcher, *arguments = cmd
        self.process = _Fork(target=_serve, args=(arguments, kwargs["env"], kwargs.get("cwd")))
        self.process.start()
        self.pid = self.process.pid
        return self.connection_info


class _Fork(get_context("fork").Process):
    """With the names that Jupyter asks a `subprocess.Popen` for."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _serve(arguments: list[str], environment: dict[str, str], folder: str | None) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.environ.clear()
    os.environ.update(environment)
    if folder:
        os.chdir(folder)
    # The parent's loop is in the midst of waiting for this kernel.
    asyncio.set_event_loop(asyncio.new_event_loop())
    # Matplotlib was imported before there was a kernel to show its figures.
    arguments = [*arguments, "--matplotlib=inline"]
    IPKernelApp.launch_instance(argv=arguments, parent_handle=os.getppid())
