"""Several processes that train one bundle's experiments on one device. ::

code = side_by_side([sys.executable, "run.py", ...], 4)     # starts them and waits for them

for name in turns(waiting, parents, out, failed, stop):     # in each: what falls to it
    ...
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from . import results

__all__ = ["side_by_side", "turns"]

# Between two looks whether a parent that another process trains is finished.
_WAIT_SECONDS = 0.2


def side_by_side(command: list[str], workers: int) -> int:
    """Run a command in several processes at once; signals to this one go on to all of them.

    Returns:
        The exit code: the first that is not 0, in the order in which they were started.
    """
    # JAX would give three quarters of a GPU's memory to the first of them.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ
    started = [subprocess.Popen(command, env=environment) for _ in range(workers)]

    def pass_on(number, frame):
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        codes = [process.wait() for process in started]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return next((code if code > 0 else 1 for code in codes if code), 0)


def turns(
    names: list[str],
    parents: Mapping[str, str | None],
    out: Path,
    failed: set[str],
    stop: Callable[[], bool],
) -> Iterator[str]:
    """The experiments that fall to this process, one after another: those that are not finished,
    whose parent is, and that no other process has in hand.

    Args:
        names: the experiments asked for, parents before children.
        parents: of each, what it starts from.
        out: the folder of results.
        failed: those that failed here, which the caller adds to; their children join them.
        stop: asked between two of them.
    """
    waiting = list(names)
    while waiting and not stop():
        before = len(waiting)
        for name in list(waiting):
            if stop():
                return
            parent = parents[name]
            if parent in failed:
                failed.add(name)
                waiting.remove(name)
                print(f"{name} is left out: its parent {parent} has no result.", flush=True)
            elif parent is None or results.finished(out / parent) or parent not in names:
                with _in_hand(out, name) as mine:
                    if mine:
                        waiting.remove(name)
                        if not results.finished(out / name):
                            yield name
        if len(waiting) == before:
            time.sleep(_WAIT_SECONDS)


@contextlib.contextmanager
def _in_hand(out: Path, name: str) -> Iterator[bool]:
    """Whether this process has the experiment in hand now: no other one has."""
    try:
        import fcntl
    except ImportError:  # Windows: there one process trains
        yield True
        return
    place = out / ".checkpoints" / f"{name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
        if results.finished(out / name):  # whoever comes now sees that
            place.unlink(missing_ok=True)
