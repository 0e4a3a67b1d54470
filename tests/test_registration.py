"""Whatever the order of import, Keras knows the package's classes once TensorFlow is loaded, and
not before.
"""

import os
import subprocess
import sys
from pathlib import Path

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
"""
PREDICT = """
for model in (nested, whole):
    assert np.array_equal(model.predict(np.ones((2, 4, 4, 1)), verbose=0), np.load("expected.npy"))
"""
THREADS = """
def started(*names):
    threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
"""
# TensorFlow's own import does not stand that other threads import meanwhile: it imports distutils,
# for which a finder of setuptools imports, with Python's lock of all imports held.
ORDERS = {
    "the package first": "import supermask_tf, tensorflow as tf",
    "Keras first of the two": "import supermask_tf, keras, tensorflow as tf",
    "through a masked layer": (
        "from supermask_tf.layers import MaskedDense\nimport tensorflow as tf"
    ),
    "in other threads": (
        f"import supermask_tf, threading, importlib{THREADS}started('tensorflow')\n"
        "started('supermask_tf.layers', 'supermask_tf.training', 'keras', 'supermask_tf.models')\n"
        "import tensorflow as tf"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_saved_models_load_in_a_new_process(saved, order):
    """`load_model` and `model_from_json` find masked layers and models of the package, wherever it
    was imported.
    """
    first = order == "the package first"
    words = run(ORDERS[order] + LOAD + (PREDICT if first else ""), cwd=saved)
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


@pytest.fixture(scope="module")
def standing_in(tmp_path_factory):
    """A folder with packages that import as TensorFlow, Keras and this package do, at once, and
    with this package's own finder: modules of a few lines that let other threads go ahead.
    """
    folder = tmp_path_factory.mktemp("standing_in")
    nap = "import random, time\ntime.sleep(random.random() * 0.002)\n"
    modules = {
        "tensorflow/__init__.py": f"{nap}from tensorflow import python\n{nap}whole = True\n",
        "tensorflow/python.py": f"{nap}x = 1\n",
        "keras/__init__.py": (
            f"{nap}from tensorflow.python import x\nfrom keras import layers\nwhole = True\n"
        ),
        "keras/layers.py": f"{nap}import tensorflow as tf\n{nap}",
        "mine/__init__.py": "from mine import _registration\n_registration.register()\n",
        "mine/layers.py": f"{nap}import tensorflow as tf\n{nap}tf.whole\nz = 1\n",
        "mine/estimators.py": f"{nap}import tensorflow as tf\ntf.whole\n",
        "mine/training.py": f"{nap}import tensorflow as tf\n{nap}from .layers import z\n{nap}",
        "mine/models.py": f"{nap}from .layers import z\n{nap}from . import training\n",
        "mine/_kinds.py": f"{nap}import keras\nkeras.whole\n",
        "mine/_registration.py": Path(sm._registration.__file__).read_text(),
    }
    for name, text in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "order",
    [
        "import mine, tensorflow",
        "import tensorflow, mine",
        "import mine, tensorflow.python",
        "import mine, keras, tensorflow",
        "from mine.layers import z\nimport tensorflow",
        "import mine as m\nfrom mine import estimators\nimport tensorflow",
        "import mine, importlib\nimportlib.reload(mine)\nimport tensorflow\nimportlib.reload(mine)",
    ],
)
def test_orders_of_import(standing_in, order):
    """Once TensorFlow is imported, what registers is too, and nobody's import fails."""
    check = "import sys\nprint('mine.models' in sys.modules, 'mine._kinds' in sys.modules)\n"
    left = "print([f for f in sys.meta_path if type(f).__module__ == 'mine._registration'])"
    words = run(f"import sys\nsys.path.insert(0, '.')\n{order}\n{check}{left}", cwd=standing_in)
    assert words == ["True", "True", "[]"], "registered, and the finder is gone"


def test_threads_that_import_at_once(standing_in):
    """Whichever thread imports what, none waits for ever, none fails, and the classes get
    registered.
    """
    code = f"""
import faulthandler, importlib, sys, threading
sys.path.insert(0, ".")
sys.setswitchinterval(1e-5)
faulthandler.dump_traceback_later(200, exit=True)
threading.excepthook = lambda raised: print("raised", repr(raised.exc_value))
{THREADS}
for _ in range(100):
    for name in [n for n in sys.modules if n.partition(".")[0] in ("tensorflow", "keras", "mine")]:
        del sys.modules[name]
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != "mine._registration"]
    import mine
    started("tensorflow", "mine.layers", "mine.training", "keras", "mine.models")
    assert "mine.models" in sys.modules and "mine._kinds" in sys.modules
"""
    assert " ".join(run(code, cwd=standing_in)) == ""


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
