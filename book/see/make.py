"""Makes the two files of this folder that the records don't hold. ::

    SUPERMASK_DATA=... python book/see/make.py

digits.png: the first ten test images of each class of MNIST, a row a class, in the package's
canonical order.
(Yann LeCun, Corinna Cortes and Christopher J.C. Burges; CC BY-SA 3.0.)

ticket.supermask: a lottery ticket with its trained weights, in half precision. A record holds no
trained weights, so its run is done again, under the mask that it holds. On another processor the
last bits differ, and with them some test images.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import supermask_tf as sm
from supermask_tf.experiment import Experiment, starting
from supermask_tf.paper import see

HERE = Path(__file__).resolve().parent


def digits() -> None:
    images, labels = sm.data.load("mnist").test
    chosen = [np.flatnonzero(labels == label)[:10] for label in range(10)]
    rows = [np.hstack([images[i].reshape(28, 28) for i in row]) for row in chosen]
    source = PngInfo()
    source.add_text("Source", "MNIST, test images; Y. LeCun, C. Cortes, C.J.C. Burges")
    source.add_text("Copyright", "CC BY-SA 3.0")
    Image.fromarray(np.vstack(rows)).save(HERE / "digits.png", optimize=True, pnginfo=source)


def ticket() -> None:
    record = see.trained(HERE.parents[1] / "runs")
    masks = see.masks(record)
    found, starting._ticket = starting._ticket, lambda *_: masks
    try:
        with tempfile.TemporaryDirectory() as folder:
            for experiment in Experiment.lineage(record.path / "experiment.json"):
                again = experiment.run(folder)
            about = {"run": record.name, "study": record.study, "dataset": "mnist", "arm": "ticket"}
            about |= {"test_accuracy": again.summary["test_accuracy"]}
            about |= {"made": "by book/see/make.py: the run done again under its record's mask"}
            about |= {"record_test_accuracy": record.summary["test_accuracy"]}
            about |= {"processor": again.summary["processor"]}
            sm.save(again.load_model(), HERE / "ticket.supermask", float16=True, about=about)
    finally:
        starting._ticket = found


if __name__ == "__main__":
    digits()
    ticket()
