"""Makes the package's classes known to Keras as soon as TensorFlow is there, in either order of
import.

`load_model` finds a class by the name under which it was registered. The package's classes register
themselves when their modules are imported, and those modules import TensorFlow. Whoever only reads
records must not load TensorFlow. So the modules are imported at once where TensorFlow is loaded
already, and otherwise right after it has been: Python asks the finders in `sys.meta_path` for every
module that it imports, and one of them is here. No TensorFlow.
"""

import importlib
import sys
import threading
from contextlib import suppress

__all__ = ["register"]

# Those that must be whole before a class can be registered. Each of them may import another one.
_FRAMEWORKS = ("tensorflow", "keras", "tf_keras")


def register() -> None:
    """Register the classes now or, where TensorFlow is not loaded, when it has been imported."""
    if not _registered() and _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)


def _registered() -> bool:
    """Register, if TensorFlow is loaded; whether that is done."""
    if sys.modules.get("tensorflow") is None:
        return False
    # Nobody's `import tensorflow` may fail because of this package, such as under a version that it
    # does not know. The error comes again, to the right person, when a module of the package is
    # used.
    with suppress(Exception):
        # It imports all that have something to register.
        importlib.import_module(f"{__package__}.models")
        importlib.import_module(f"{__package__}._kinds")
        return True
    return False


class _Watcher:
    """A finder that finds nothing by itself: it takes what another finder finds, and has its loader
    report when the module is whole.
    """

    def __init__(self):
        # A signal's handler may import while this very thread counts.
        self._lock, self._open = threading.RLock(), 0

    # It must import nothing: Python holds the lock of all imports meanwhile, and a thread that
    # waits for that may hold the lock of what is imported here.
    def find_spec(self, name, path=None, target=None):
        if name not in _FRAMEWORKS and not name.startswith(f"{__package__}."):
            return None
        others = [
            finder
            for finder in sys.meta_path
            if finder is not self and hasattr(finder, "find_spec")
        ]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._tell_of(spec.loader)
        return spec

    def _tell_of(self, loader) -> None:
        execute = loader.exec_module

        def exec_module(module):
            with self._lock:
                self._open += 1
            try:
                execute(module)
            finally:
                with self._lock:
                    self._open -= 1
            # A module that imports another one is not whole yet when that one is: the outermost
            # counts.
            if self._open == 0 and _registered():
                with suppress(ValueError):
                    sys.meta_path.remove(self)

        loader.exec_module = exec_module


_watcher = _Watcher()
