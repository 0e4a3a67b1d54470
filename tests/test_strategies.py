"""Many devices mean what one device means: the same step from the same state, the same masks on
every replica, one record.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from strategy_script import RUN

from supermask_tf import models
from supermask_tf._keras import KERAS, BatchNormalization, SynchronizedBatchNormalization
from supermask_tf.experiment import Experiment, devices
from supermask_tf.records import load_runs

SCRIPT = Path(__file__).with_name("strategy_script.py")


def script(*arguments, **environment):
    path = os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(*processes):
    """What the processes print at the end."""
    told = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), told
    return [json.loads(out.splitlines()[-1]) for out, _ in told]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The test accuracies that the same run has on one device, for several seeds."""
    directory = tmp_path_factory.mktemp("single")
    runs = [Experiment(seed=seed, **RUN).run(directory, progress=False) for seed in range(3)]
    return [run.summary["test_accuracy"] for run in runs]


def check(directory, found, single):
    """Steps agree within rounding, replicas drew the same masks, and the whole run is one record
    like those of one device.
    """
    first, *others = found
    for case, step in first["steps"].items():
        assert step["worst"] < (1e-9 if "float64" in case else 1e-5), case
        for other in found:
            told = other["steps"][case]
            assert told["equal"] and (told["masks"], told["sum"]) == (step["masks"], step["sum"]), (
                case
            )
    (run,) = load_runs(directory)
    assert first["record"] == str(run.path) and run.damaged == [] and run.summary["replicas"] == 2
    for other in others:
        assert not Path(other["record"]).exists() and other["accuracy"] == first["accuracy"], (
            "what is not the chief's goes away"
        )
    assert min(single) - 0.02 <= run.summary["test_accuracy"] <= max(single) + 0.02
    assert run.summary["masked"] > 0.01


@pytest.mark.long
def test_mirrored(tmp_path, single):
    """Two logical processors under `mirrored`."""
    check(tmp_path / "runs", answers(script("mirrored", str(tmp_path / "runs"))), single)


@pytest.mark.long
@pytest.mark.skipif(KERAS == 3, reason="Keras 3 refuses it, which another test sees")
def test_multi_worker(tmp_path, single):
    """Two workers on loopback under `multi_worker`."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0)), other.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
    configuration = [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        for index in (0, 1)
    ]
    check(
        tmp_path / "runs",
        answers(
            *[
                script("multi_worker", str(tmp_path / "runs"), TF_CONFIG=each)
                for each in configuration
            ]
        ),
        single,
    )


@pytest.mark.parametrize(
    "parameters, words",
    [
        (
            {"strategy": "multi_worker"},
            [
                f"strategy='multi_worker' needs {'TF_CONFIG' if KERAS == 2 else 'Keras 2'}",
                "strategy='mirrored'",
            ],
        ),
        ({"strategy": "two"}, ["Unknown strategy 'two'", "mirrored, multi_worker"]),
    ],
)
def test_refused(tmp_path, monkeypatch, parameters, words):
    """A strategy that can't work is told before training."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError) as error:
        Experiment(model="lenet_300_100", **parameters).run(tmp_path / "runs", progress=False)
    assert all(word in str(error.value) for word in words)


def test_unequal_parts_are_refused(tmp_path, monkeypatch):
    """Parts of different sizes would count their images differently."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 3)
    monkeypatch.setattr(devices, "strategies", lambda name: strategy)
    with pytest.raises(
        ValueError,
        match="batch_size=128 has no equal parts for 3 replicas .*: give a multiple of 3",
    ):
        Experiment(model="lenet_300_100", strategy="mirrored").run(
            tmp_path / "runs", progress=False
        )


def test_one_device_keeps_its_batch_norm():
    """Without a strategy the network is Keras's own batch norm, bit for bit as before; under one it
    is synchronized.
    """

    def kinds():
        return {
            type(layer)
            for layer in models.wide_resnet(10, 1, (8, 8, 1)).layers
            if isinstance(layer, tf.keras.layers.BatchNormalization)
        }

    assert kinds() == {BatchNormalization}
    assert KERAS == 3 or BatchNormalization is tf.keras.layers.BatchNormalization
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert kinds() == {SynchronizedBatchNormalization}
