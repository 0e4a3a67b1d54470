"""Whatever the order of import, Keras knows the package's classes once TensorFlow is loaded, and
not before.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(code, **options):
    """What a new Python prints; it must end well, and with nothing in flight that it warns of."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ROOT},
        **options,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with plain Keras models that hold a `SupermaskModel` and a masked layer, and one
    whole in .h5 and JSON.
    """
    folder = tmp_path_factory.mktemp("saved")
    inner = sm.models.lenet_300_100((4, 4, 1), 3, phase="weights")
    tf.keras.Sequential([tf.keras.layers.RandomFlip(input_shape=(4, 4, 1)), inner]).save(
        folder / "nested.keras"
    )
    masked = sm.MaskedDense(
        3,
        name="d",
        estimator=sm.estimators.get("top_k", density=0.5),
        mask_regularizer=sm.layers.OpenOrClosed(0.1),
    )
    tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(4, 4, 1)), masked]).save(
        folder / "layer.keras"
    )
    inner.save(folder / "whole.h5")
    (folder / "whole.json").write_text(inner.to_json())
    np.save(folder / "expected.npy", inner.predict(np.ones((2, 4, 4, 1)), verbose=0))
    return folder


LOAD = """
import numpy as np
names = ("nested.keras", "layer.keras", "whole.h5")
models = [tf.keras.models.load_model(name, compile=False) for name in names]
models.append(tf.keras.models.model_from_json(open("whole.json").read()))
nested, layer, whole, described = models
print(*[type(model).__name__ for model in (nested.layers[1], layer.layers[1], whole, described)])
strength = layer.layers[1].mask_regularizer.strength
print(nested.layers[1].phase, whole.phase, described.phase, strength)
for model in (nested, whole):
    assert np.array_equal(model.predict(np.ones((2, 4, 4, 1)), verbose=0), np.load("expected.npy"))
"""
ORDERS = {
    "the package first": "import supermask_tf, tensorflow as tf",
    "TensorFlow first": "import tensorflow as tf, supermask_tf",
    "a part of TensorFlow": "import supermask_tf\nimport tensorflow.keras\nimport tensorflow as tf",
    "Keras first of the two": "import supermask_tf, keras, tensorflow as tf",
    "through a masked layer": (
        "from supermask_tf.layers import MaskedDense\nimport tensorflow as tf"
    ),
    "through the package's estimators": (
        "import supermask_tf as sm\nsm.estimators\nimport tensorflow as tf"
    ),
    "the package again": (
        "import importlib, supermask_tf\nimportlib.reload(supermask_tf)\nimport tensorflow as"
        " tf\nimportlib.reload(supermask_tf)"
    ),
    "in other threads": (
        "import supermask_tf, threading, importlib\nnames = 'tensorflow', 'supermask_tf.layers',"
        " 'supermask_tf.training', 'keras', 'supermask_tf.models'\nthreads ="
        " [threading.Thread(target=importlib.import_module, args=(name,)) for name in"
        " names]\n[thread.start() for thread in threads], [thread.join() for thread in"
        " threads]\nimport tensorflow as tf"
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("order", ORDERS)
def test_saved_models_load_in_a_new_process(saved, order):
    """`load_model` and `model_from_json` find masked layers and models of the package, wherever it
    was imported.
    """
    words = run(ORDERS[order] + LOAD, cwd=saved)
    assert words == [
        "SupermaskModel",
        "MaskedDense",
        "SupermaskModel",
        "SupermaskModel",
        "weights",
        "weights",
        "weights",
        "0.1",
    ]


@pytest.mark.slow
def test_importing_the_package_loads_no_tensorflow():
    """Reading records needs no TensorFlow: neither the package nor asking whether TensorFlow is
    there loads it.
    """
    code = (
        "import sys, importlib.util, supermask_tf as sm\nsm.load_runs, sm.claims,"
        " sm.Experiment\nprint(importlib.util.find_spec('tensorflow').name, [name for name in"
        " sys.modules if name.partition('.')[0] in ('tensorflow', 'keras')])"
    )
    assert run(code) == ["tensorflow", "[]"]


@pytest.mark.slow
def test_a_framework_that_the_package_does_not_know_is_let_alone(tmp_path):
    """Whoever imports another TensorFlow gets it whole; one that fails to import fails as without
    this package.
    """
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(
        "import os\nif 'FAILS' in os.environ: raise OSError('no library')\nfine = True\n"
    )
    code = (
        "import os, sys\nsys.path.insert(0, '.')\nimport supermask_tf\nos.environ['FAILS'] ="
        " '1'\ntry: import tensorflow\nexcept OSError as error: print(error, 'tensorflow' in"
        " sys.modules)\ndel os.environ['FAILS']\nimport tensorflow\nprint(tensorflow.fine,"
        " supermask_tf.load_runs.__name__)\ntry: supermask_tf.MaskedDense\nexcept Exception as"
        " error: print('told')"
    )
    assert run(code, cwd=tmp_path) == ["no", "library", "False", "True", "load_runs", "told"]
