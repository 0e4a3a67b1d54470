"""How to run it again: the parameters of an experiment."""

from dataclasses import fields

import pandas as pd


def parameters(experiment: type):
    """One row per parameter: its name, its default, and what it is.

    Args:
        experiment: the dataclass `supermask_tf.Experiment`. It is given, since importing it here
            would import TensorFlow.
    """
    rows = [(field.name, field.default, field.metadata["help"]) for field in fields(experiment)]
    table = pd.DataFrame(rows, columns=["parameter", "default", "what it is"])
    style = {"text-align": "left", "vertical-align": "top"}
    return table.style.hide(axis="index").set_properties(**style)
