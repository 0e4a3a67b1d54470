"""What the tests share: no network, a figure backend without a screen, small data, and one set of
finished runs.
"""

import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A kernel that a test starts must choose its own backend: without the inline one a notebook has no
# figures.
os.environ.pop("MPLBACKEND", None)

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would whatever
# they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A connection to another machine fails the test that tries it."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def real_data():
    """The folder with MNIST and CIFAR-10; without it the test is skipped."""
    folder = os.environ.get("SUPERMASK_DATA")
    if not folder or not (Path(folder) / "mnist.npz").is_file():
        pytest.skip(
            "needs the real MNIST and CIFAR-10: set SUPERMASK_DATA to a folder with mnist.npz and"
            " cifar10.npz"
        )
    return Path(folder)


def _arrays(train=60, test=20, shape=(6, 5, 1), classes=4, seed=0, dtype=np.uint8):
    random = np.random.default_rng(seed)
    arrays = {}
    for split, n in (("train", train), ("test", test)):
        x = random.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"x_{split}"] = x if dtype == np.uint8 else (x / 255).astype(dtype)
        arrays[f"y_{split}"] = (np.arange(n) % classes).astype(np.uint8)
    return arrays


@pytest.fixture
def arrays():
    """A function that makes random arrays in Keras's layout."""
    return _arrays


@pytest.fixture
def npz(tmp_path):
    """A function that writes arrays (random ones unless given) as an .npz and returns its path as
    text.
    """

    def write(arrays=None, name="mine", **options):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **(_arrays(**options) if arrays is None else arrays))
        return str(path)

    return write


@pytest.fixture
def load(tmp_path):
    """A function that writes a study file and reads it."""
    from supermask_tf.studies.study import Study

    def read(text):
        path = tmp_path / "mine.yml"
        path.write_text(text)
        return Study.load(path)

    return read


# The settings of the shared runs: a WRN-10-1, large steps, so that masks leave their start within
# two epochs.
SMALL = {"dataset": "digits", "model": "wide_resnet", "depth": 10, "batch_size": 64, "epochs": 2}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A finished run of each arm on the digits, made once; tests copy what they change."""
    from supermask_tf.experiment import Experiment

    directory = tmp_path_factory.mktemp("runs") / "small"
    mask = Experiment(arm="mask", learning_rate=0.1, **SMALL).run(directory, progress=False)
    weights = Experiment(arm="weights", **SMALL).run(directory, progress=False)
    finetune = Experiment(arm="finetune", learning_rate=1e-3, init_from=mask.name, **SMALL).run(
        directory, progress=False
    )
    return SimpleNamespace(directory=directory, mask=mask, weights=weights, finetune=finetune)


def left(directory: Path) -> list[str]:
    """What is in a study's folder, without the locks (empty files that tell nothing) and the folder
    of checkpoints if it is empty.
    """
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.name != ".locks" and (path.name != ".checkpoints" or any(path.iterdir()))
    )


@pytest.fixture
def untrained(monkeypatch):
    """Training fails the test: what is refused must be refused before it."""

    def train(*_):
        raise AssertionError("training has begun")

    monkeypatch.setattr("supermask_tf.experiment.loop.train", train)


# Half of the suite's time: begun first, so that two workers end together.
LONG = (
    "test_book.py",
    "test_training.py",
    "test_checkpoints.py",
    "test_exporter.py",
    "test_experiment.py",
    "test_cluster.py",
    "test_runner.py",
    "test_strategies.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first; a long test is a slow one too."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def run_jax():
    """A function that runs a script in the second environment (JAX, no TensorFlow); it returns the
    finished process.
    """
    python = Path(__file__).resolve().parents[1] / ".venv-jax" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs the environment with JAX: `make .venv-jax/installed` makes it")

    def run(*arguments, check=True):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, *map(str, arguments)], env=environment, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    run.python = python
    return run
