"""What is read while a graph is traced, and whether it is still so when the graph runs."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import tensorflow as tf

__all__ = ["as_traced", "traced_freely"]

Value = TypeVar("Value")

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
