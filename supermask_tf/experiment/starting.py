"""Where a network starts: from its parent's mask, weights or batch norm, from weights drawn anew;
or from a record, which is where its own training ended.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from .. import data, initializers, tickets
from ..records import Run
from . import callbacks, network
from .arms import ARMS
from .parameters import Experiment

__all__ = ["rebuild", "start"]


def rebuild(run: Run) -> tf.keras.Model:
    """The network of a finished run at its recorded epoch, compiled.

    Raises:
        FileNotFoundError: if it trained weights and they are no longer beside the record.
    """
    parameters = dict(run.parameters)
    if parameters["dataset"].endswith(".npz"):
        parameters["dataset"] = "digits"  # a record is rebuilt without its data, which may be gone
    experiment = Experiment.of_record(parameters)
    model = network.build(experiment, run.summary["image_shape"], run.summary["classes"])
    _restore(model, run)
    network.compile_model(model, experiment)
    return model


def _restore(model: tf.keras.Model, run: Run) -> None:
    """Give a network at θ0 the masks, the batch norm and, where they were trained, the weights of a
    run.
    """
    state, beyond = run.state(), network.beyond_masks(model)
    # Which masks fit depends on the density.
    _assign({path: v for path, v in beyond.items() if path.endswith("/density")}, state)
    model.set_masks(_masks(model, run))
    _assign(network.batch_norm(model) | beyond | network.weights(model), state)
    if ARMS[run.parameters["arm"]].leaves_weights:
        if not run.weights_file.is_file():
            raise FileNotFoundError(
                f"{run.name} has trained weights, and they are no longer beside its record "
                f"({run.weights_file}): make them again with `supermask run "
                f"{run.path}/experiment.json --directory {run.path.parent} --weights`."
            )
        _assign(network.weights(model) | network.batch_norm(model), run.weights())


def start(
    model: tf.keras.Model, experiment: Experiment, parent: Run, images: data.ImageData
) -> None:
    """Give a network at θ0 what its arm takes from the parent."""
    arm = ARMS[experiment.arm]
    if arm.mask == "ticket":
        model.set_masks(_ticket(model, experiment, parent))
    elif arm.mask not in ("open", "logits"):
        masks = _masks(model, parent).items()
        seed = experiment.seed
        model.set_masks({path: tickets.control(m, arm.mask, seed, path) for path, m in masks})
    if arm.weights != "parent":
        _assign(network.weights(model), parent.state())  # weights that IteRand drew anew
    if arm.weights == "parent":
        _assign(network.weights(model), parent.weights())
    if arm.mask == "logits":
        _assign(network.logits(model), parent.weights())
        model.rank()
    if arm.weights == "drawn_anew":
        _draw_anew(model, experiment)
    if arm.batch_norm == "parent" and not experiment.reset_batch_norm:
        # Weights that were made again may have come out otherwise; then their batch norm lies with
        # them.
        own = parent.weights() if arm.weights == "parent" else {}
        _assign(network.batch_norm(model), parent.state() | own)
    if experiment.rewind_epochs:
        _rewind(model, experiment, parent, images, experiment.rewind_epochs)
    if experiment.mask_0 or experiment.mask_1:
        _act(model, experiment, parent)


def _act(model: tf.keras.Model, experiment: Experiment, parent: Run) -> None:
    """Zhou et al.'s mask-0 and mask-1 actions: what becomes of weights that go, and that stay."""
    masks, trained = model.masks(), parent.weights()
    for path, kernel in network.weights(model).items():
        if path.endswith("/kernel"):
            began, mask = kernel.numpy(), masks[path]
            goes = tickets.gone(began, trained[path], experiment.mask_0)
            draw = initializers.get(experiment.initializer)
            stays = tickets.kept(
                began, trained[path], mask, experiment.mask_1, draw, experiment.seed, path
            )
            kernel.assign(np.where(mask, stays, goes))


def _ticket(model: tf.keras.Model, experiment: Experiment, parent: Run) -> dict[str, np.ndarray]:
    """The mask that is read from a parent's trained weights."""
    variables = network.weights(model).items()
    kernels = {path: v.numpy() for path, v in variables if path.endswith("/kernel")}
    within = {path: mask for path, mask in _masks(model, parent).items() if path in kernels}
    density, criterion, scope = experiment.density, experiment.criterion, experiment.scope
    # An arm that reads a ticket has them: they were filled in.
    assert density is not None and criterion is not None and scope is not None
    try:
        trained = parent.weights()
        return tickets.masks(kernels, trained, density, criterion, scope, within, experiment.seed)
    except ValueError as error:
        raise ValueError(f"init_from={experiment.init_from!r}: {error}") from error


def _draw_anew(model: tf.keras.Model, experiment: Experiment) -> None:
    """Put other weights in the place of θ0, under the mask that the network has."""
    masks, seed, redraw = model.masks(), experiment.reinit_seed, experiment.redraw
    assert seed is not None and redraw  # an arm that draws anew has both: they were filled in
    for path, kernel in network.weights(model).items():
        if not path.endswith("/kernel"):
            continue  # biases start at 0 whatever is drawn
        draw = initializers.get(experiment.initializer)
        values, mask = tickets.drawn_anew(kernel.numpy(), masks[path], redraw, draw, seed, path)
        kernel.assign(values)
        if mask is not masks[path]:
            model.set_masks({path: mask})


def _rewind(
    model: tf.keras.Model,
    experiment: Experiment,
    parent: Run,
    images: data.ImageData,
    epochs: int,
) -> None:
    """Give a network the weights and batch norm that its first ancestor, a weights run, had early
    on.

    That run is trained again for so many epochs.
    """
    parameters = parent.parameters
    while parameters["parent"]:
        parameters = parameters["parent"]
    root = Experiment.of_record(parameters)
    early = network.build(root, images.image_shape, images.classes)
    network.compile_model(early, root)
    batches = data.training_batches(
        images,
        batch_size=root.batch_size,
        seed=root.seed,
        epochs=epochs,
        augmented=root.augment,
    )
    if experiment.strategy:
        batches = data.shared_out(batches, tf.distribute.get_strategy())
    steps = len(images.train[0]) // root.batch_size
    early.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=callbacks.schedule(root, steps),
    )
    then = network.weights(early) | network.batch_norm(early)
    _assign(
        network.weights(model) | network.batch_norm(model),
        {path: v.numpy() for path, v in then.items()},
    )


def _masks(model: tf.keras.Model, run: Run) -> dict[str, np.ndarray]:
    return run.masks({path: mask.shape for path, mask in model.masks().items()})


def _assign(variables: dict[str, tf.Variable], values: dict[str, Any]) -> None:
    """Assign what of the values the variables have.

    A child needs the masks of a run that draws, not its logits.
    """
    for path in variables.keys() & set(values):
        variables[path].assign(values[path])
