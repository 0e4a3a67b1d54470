"""What of a network becomes programs, and the programs as a bundle holds them. ::

for name, (function, signature) in functions(model, 128, (32, 32, 3)).items():
    ...                                   # compiled as far as XLA's input
    content, aliases = bare(serialized, name)
"""

from collections.abc import Callable
from typing import Any

__all__ = ["CHUNK", "EVALUATION_BATCH", "bare", "functions"]

# Training batches in the arguments of a program.
CHUNK = 32
# As in `data.evaluation_batches`: an estimator that draws at evaluation draws one mask per batch.
EVALUATION_BATCH = 500


def functions(
    model, batch_size: int, image_shape: tuple[int, int, int]
) -> dict[str, tuple[Callable, list[Any]]]:
    """The functions to compile, each with the signature of its own arguments."""
    import tensorflow as tf

    from ..experiment import measuring

    def images(*shape):
        return tf.TensorSpec((*shape, *image_shape), tf.float32), tf.TensorSpec(shape, tf.int64)

    number, real = tf.TensorSpec((), tf.int32), tf.TensorSpec((EVALUATION_BATCH,), tf.float32)
    chunk, rates = images(CHUNK, batch_size), tf.TensorSpec((CHUNK,), tf.float32)
    found: dict[str, tuple[Callable, list[Any]]] = {
        "train": (_train(model), [*chunk, rates, number, number]),
        "evaluate": (_evaluate(model), [*images(EVALUATION_BATCH), real]),
        "masks": (_masks(model), []),
    }
    if measuring.moving_statistics(model):
        found["statistics"] = _statistics(model), [chunk[0], number, number]
    return found


def _train(model) -> Callable:
    import tensorflow as tf

    def train(x, y, rates, begin, end):
        def step(i):
            model.optimizer._learning_rate.assign(rates[i])
            model.train_step((x[i], y[i]))
            return i + 1

        tf.while_loop(lambda i: i < end, step, [begin])
        return model.metrics[0].result()

    return train


def _evaluate(model) -> Callable:
    import tensorflow as tf

    def evaluate(x, y, real):
        logits = model(x, training=False)
        # One per image: a loss object's own call averages.
        losses = getattr(model.loss, "call", model.loss)(y, logits)
        right = tf.cast(tf.argmax(logits, axis=-1) == y, tf.float32)
        return (
            tf.reduce_sum(losses * real),
            right * real,
            tf.add_n([tf.zeros([]), *model.losses]),
        )

    return evaluate


def _masks(model) -> Callable:
    import tensorflow as tf

    from ..layers import masked_layers

    def masks():
        return [
            tf.cast(
                layer.estimator.most_likely(tf.convert_to_tensor(logits), **layer.now()) > 0.5,
                tf.uint8,
            )
            for layer in masked_layers(model)
            for logits in (layer.kernel_logits, layer.bias_logits)
            if logits is not None
        ]

    return masks


def _statistics(model) -> Callable:
    import tensorflow as tf

    from ..experiment import measuring

    moving = measuring.moving_statistics(model)

    def statistics(x, begin, end):
        def step(i, *sums):
            model(x[i], training=True)
            return i + 1, *(s + tf.cast(v, s.dtype) for s, v in zip(sums, moving))

        with measuring.batch_statistics(model):
            zeros = [tf.zeros(v.shape, tf.float64) for v in moving]
            return tf.while_loop(lambda i, *_: i < end, step, [begin, *zeros])[1:]

    return statistics


def bare(serialized: bytes, name: str) -> tuple[bytes, list[tuple[int, int]]]:
    """An HLO module without the source lines and counters of this process, and which output
    replaces which argument.
    """
    # The format of what TensorFlow's public `experimental_get_compiler_ir` returns.
    from tensorflow.compiler.xla.service import hlo_pb2

    module = hlo_pb2.HloModuleProto.FromString(serialized)
    module.name = name
    module.ClearField("stack_frame_index")
    for computation in module.computations:
        _without_copies(computation)
        for instruction in computation.instructions:
            instruction.ClearField("metadata")
    aliases = [
        (entry.output_shape_index[0], entry.parameter_number)
        for entry in module.input_output_alias.entries
    ]
    return module.SerializeToString(deterministic=True), aliases


def _without_copies(computation) -> None:
    """Let a computation use each value itself where it used a copy: XLA makes the copies that it
    needs, and StableHLO, in which JAX hands a program to an accelerator, has no word for one.
    """
    copied = {i.id: i.operand_ids[0] for i in computation.instructions if i.opcode == "copy"}

    def original(number: int) -> int:
        while number in copied:
            number = copied[number]
        return number

    kept = [i for i in computation.instructions if i.id not in copied]
    for instruction in kept:
        for operands in (instruction.operand_ids, instruction.control_predecessor_ids):
            operands[:] = [original(number) for number in operands]
    computation.root_id = original(computation.root_id)
    del computation.instructions[:]
    computation.instructions.extend(kept)
