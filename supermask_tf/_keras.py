"""What the package needs of Keras and TensorFlow beyond their public interfaces: the one place that
knows private names.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import tensorflow as tf
from keras.src.saving.legacy import hdf5_format

__all__ = [
    "as_traced",
    "follow_phase",
    "holders",
    "layout",
    "lists_weights_as_in",
    "renewed",
    "traced_freely",
]

Value = TypeVar("Value")

# --- what is read while a graph is traced ---------------------------------------------------------

_free: ContextVar[bool] = ContextVar("whether graphs are traced without a check", default=False)


def as_traced(read: Callable[[], Value], what: str) -> Value:
    """`read()`; a `tf.function` that is being traced will raise if it runs with another value.

    Such a function reads Python values once, while it is traced. Without this it would go on with
    the old value and say nothing.

    Args:
        read: gives the value, which compares with `==`.
        what: what is read, for the sentence: "the phase of 'lenet'".
    """
    value = read()
    if not tf.inside_function() or _free.get():
        return value
    with tf.init_scope():
        nothing = tf.constant(0)

    def check():
        if read() != value:
            raise RuntimeError(
                f"A tf.function that was traced while {what} was {value!r} is called now that it is"
                f" {read()!r}, and would go on as before. Trace it again: wrap the Python function"
                " in a new tf.function, or compile the Keras model that has it."
            )
        return nothing

    _check_at_calls(check, nothing, (__name__, what))
    return value


def _check_at_calls(
    check: Callable[[], tf.Tensor], nothing: tf.Tensor, key: tuple[str, str]
) -> tf.Tensor:
    """Let TensorFlow call `check` whenever it calls the function that is being traced, also when
    XLA has compiled it.

    For that the function gets an input that it does not use: what `check` returns, or `nothing` in
    a SavedModel.
    """
    graph = tf.compat.v1.get_default_graph()
    while getattr(graph, "is_control_flow_graph", False):
        graph = graph.outer_graph  # Python does not call the branches of `tf.cond`
    with graph.as_default():
        unused = graph.capture_call_time_value(
            check, tf.TensorSpec([], tf.int32), key=key, default_value=nothing
        )
    checks = graph.function_captures.by_ref_external
    told = checks[key]

    # A function that another one calls hands its check on to the graph of that one, be it a branch.
    def hand_on():
        inside = getattr(tf.compat.v1.get_default_graph(), "is_control_flow_graph", False)
        return [_check_at_calls(check, nothing, key)] if inside else told()

    if not hasattr(told, "hands_on"):
        handing: Any = hand_on  # it gets attributes, as TensorFlow's own has
        handing.output_spec, handing.hands_on = told.output_spec, True
        checks[key] = handing
    return unused


@contextlib.contextmanager
def traced_freely() -> Iterator[None]:
    """Functions traced in here hold no check of `as_traced`: for a program that leaves Python."""
    token = _free.set(True)
    try:
        yield
    finally:
        _free.reset(token)


# --- models around a model ------------------------------------------------------------------------


def holders(parts: list[tf.keras.Model]) -> list[tf.keras.Model]:
    """The living Keras models that have one of `parts` among their layers, at any depth.

    A Keras layer does not know the models that it is in, so all living objects are looked through
    (some 0.1 s).
    """
    wanted = {id(part) for part in parts}
    models = [
        model
        for model in gc.get_objects()
        if issubclass(type(model), tf.keras.Model) and id(model) not in wanted
    ]
    return [
        model for model in models if any(id(layer) in wanted for layer in model._flatten_layers())
    ]


def follow_phase(model: tf.keras.Model, optimizer: Any) -> None:
    """Let a model whose trainable variables have changed train those with `optimizer`, also when
    it is inside `fit`.
    """
    model.test_function = model.predict_function = None
    if optimizer is not None:
        model.optimizer = optimizer
        # What a `.keras` file keeps of `compile`.
        if getattr(model, "_compile_config", None) is not None:
            given = model._compile_config.config
            scaling = isinstance(given["optimizer"], tf.keras.mixed_precision.LossScaleOptimizer)
            given["optimizer"] = (
                optimizer if scaling else getattr(optimizer, "inner_optimizer", optimizer)
            )
        if getattr(model, "_steps_per_execution_tuner", None) is not None:
            model._steps_per_execution_tuner.optimizer = optimizer
    # Inside `fit` there must be a train function at once.
    model.train_function = (
        model.make_train_function(force=True) if model.train_function is not None else None
    )


# --- optimizers -----------------------------------------------------------------------------------

# Settings that no configuration holds; and attributes that tell how far an optimizer is built.
_EXCLUDED = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_names")
_PROGRESS = ("_built", "_hypers_created")


def renewed(old: Any) -> Any:
    """An optimizer with the settings of `old`, its learning rate as it is by now, that has met no
    variable yet.

    Keras's optimizers know only the variables that they were built with. A schedule of the learning
    rate begins anew; the loss scale of mixed precision stays.

    Raises:
        ValueError: if the optimizer's class can't make another one from `get_config()`.
    """
    scaling = isinstance(old, tf.keras.mixed_precision.LossScaleOptimizer)
    inner = renewed(old.inner_optimizer) if scaling else None
    try:
        if scaling:
            new = type(old)(
                inner,
                dynamic=old.dynamic,
                initial_scale=old.initial_scale,
                dynamic_growth_steps=old.dynamic_growth_steps,
            )
            if old.dynamic:
                new._loss_scale.current_loss_scale.assign(old.loss_scale)
                new.dynamic_counter.assign(old.dynamic_counter)
            return new
        config = old.get_config()
        # A schedule: the object itself need not be registered.
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = getattr(old, "_learning_rate", None) or old.learning_rate
        new = type(old).from_config(config)
        _carry_over(old, new)
    except Exception as error:  # whatever a class of someone else's raises
        raise ValueError(
            f"no second optimizer like {type(old).__name__} can be made ({type(error).__name__}:"
            f" {error}), which the change needs: let its get_config() return what its __init__"
            " takes"
        ) from error
    return new


def _carry_over(old, new) -> None:
    """Give `new` the attributes of `old` that its configuration lacks."""
    for name, value in vars(old).items():
        # A private attribute that a new optimizer does not have either is part of what training has
        # built.
        setting = (
            not name.startswith("_")
            or name in _EXCLUDED
            or (name in vars(new) and not name.startswith("_self_"))
        )
        if setting and name not in _PROGRESS and not _holds_variables(value):
            setattr(new, name, value)
    for name, value in getattr(old, "_hyper", {}).items():
        if callable(value):  # a legacy optimizer's function of no arguments
            new._set_hyper(name, value)


def _holds_variables(value) -> bool:
    if isinstance(value, (list, tuple, set)):
        return any(map(_holds_variables, value))
    if isinstance(value, dict):
        return any(map(_holds_variables, value.values()))
    return isinstance(value, (tf.Variable, tf.__internal__.tracking.Trackable))


# --- the order of weights in .h5 ------------------------------------------------------------------

_layout: ContextVar[str | None] = ContextVar(
    "the phase whose order of weights is asked for", default=None
)


def layout() -> str | None:
    """The phase in whose order models are to list their weights; None: each in its own."""
    return _layout.get()


@contextlib.contextmanager
def lists_weights_as_in(phase: str) -> Iterator[None]:
    """Let models list their weights as in a phase."""
    token = _layout.set(phase)
    try:
        yield
    finally:
        _layout.reset(token)


def _order_of(file, model) -> str:
    """The phase in whose order an .h5 file lists its weights: "both", or another in files that
    version 0.1.0 wrote.
    """
    for phase in ("both", "mask", "weights"):
        with lists_weights_as_in(phase):
            ours = {
                layer.name: [v.name for v in hdf5_format._legacy_weights(layer)]
                for layer in model.layers
            }
        if all(
            hdf5_format.load_attributes_from_hdf5_group(file[name], "weight_names") == names
            for name, names in ours.items()
            if name in file
        ):
            return phase
    return "both"  # of a model with other names


def _in_one_order(function, order):
    @functools.wraps(function)
    def ordered(file, model, *arguments, **options):
        with lists_weights_as_in(order(file, model)):
            return function(file, model, *arguments, **options)

    return ordered


# An .h5 file lists the weights of a model inside the model without names that count: first the
# trainable ones, then the others. Which are trainable changes with the phase, so loading in another
# phase would take one for the other.
for _name, _order in {
    "save_weights_to_hdf5_group": lambda file, model: "both",
    "load_weights_from_hdf5_group": _order_of,
    "load_weights_from_hdf5_group_by_name": _order_of,
}.items():
    setattr(hdf5_format, _name, _in_one_order(getattr(hdf5_format, _name), _order))
