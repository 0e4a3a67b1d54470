"""Exported programs: the package's own step, run by JAX in an environment without TensorFlow."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from supermask_tf import _keras, data, estimators, exporter, models, records
from supermask_tf.bundles.bundle import Bundle, starting_values
from supermask_tf.experiment import ARMS, Experiment, network, starting

SCRIPT = Path(__file__).with_name("xla_script.py")
NETWORKS = """
title: One run a network
runs:
  mask: &wrn {arm: mask, dataset: digits, depth: 10, width: 1, batch_size: 32, epochs: 2}
  weights: {<<: *wrn, arm: weights}
  lenet: &lenet {arm: mask, dataset: digits, model: lenet_300_100, batch_size: 32, epochs: 2,
                 estimator: bernoulli, mask_regularizer: 0.01}
  top_k: &top_k {arm: mask, dataset: digits, model: lenet_300_100, batch_size: 32, epochs: 2,
                 estimator: top_k, density: 0.3, rescale: root}
  bfloat16: {arm: weights, dataset: digits, model: lenet_300_100, batch_size: 32, epochs: 2,
             precision: mixed_bfloat16}
  # What shares a network with one of these.
  finetune: {arm: finetune, from: mask, epochs: 3, learning_rate: 0.1}
  long: {arm: weights_long, from: weights, epochs: 1, augment: false}
  other_seed: {<<: *wrn, seed: 1, initial_logit: 0.05, initializer: he_uniform, protocol: original}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundle of NETWORKS."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "networks.yml").write_text(NETWORKS)
    return exporter.export([folder / "networks.yml"], folder / "bundle")


@pytest.fixture(scope="module")
def images():
    return data.load("digits")


def named(bundle: Bundle, arm: str, **parameters) -> Experiment:
    """The bundle's experiment of an arm with these parameters."""
    for entry in bundle.experiments.values():
        if entry["parameters"]["arm"] == arm and all(
            entry["parameters"][k] == v for k, v in parameters.items()
        ):
            return Experiment.of({k: v for k, v in entry["parameters"].items() if k != "parent"})
    raise AssertionError(arm)


def drawn(
    network: dict, initial: dict[str, np.ndarray], number: int, closed: bool
) -> dict[str, np.ndarray]:
    """A state in the middle of a training, drawn: every variable but the metrics.

    Adam's slots are of a gradient's size. At zero, as in a first step, Adam divides a gradient by
    its own magnitude, also where that is nothing but rounding (a bias before a batch norm): no two
    ways of adding up would agree.
    """
    random = np.random.default_rng(number)
    state = {}
    for path, variable in network["variables"].items():
        shape, role = variable["shape"], variable["role"]
        if role == "weights":
            value = initial[path] + 0.02 * random.standard_normal(shape)
        elif role == "logits":
            value = random.standard_normal(shape) + 0.3 if closed else np.ones(shape)
        elif path.endswith(("gamma", "moving_variance")):
            value = random.uniform(0.5, 1.5, shape)
        elif role == "batch_norm":
            value = 0.1 * random.standard_normal(shape)
        elif path.endswith("/momentum"):
            value = 0.01 * random.standard_normal(shape)
        elif path.endswith("/velocity"):
            value = random.uniform(1e-5, 1e-3, shape)
        else:
            value = {
                "iterations": random.integers(1, 1000),
                "learning_rate": 0.01,
                "density": 0.3,
                "draws": number,
            }.get(path.rpartition("/")[2], 0)
        state[path] = np.asarray(value).astype(variable["dtype"])
    return state


STATES = {"mask": 20, "weights": 20, "bernoulli": 4, "top_k": 4}
RUNS = {
    "mask": ("mask", {"estimator": "threshold", "seed": 0}),
    "weights": ("weights", {"precision": None}),
    "bernoulli": ("mask", {"estimator": "bernoulli", "seed": 0}),
    "top_k": ("mask", {"estimator": "top_k"}),
}


@pytest.fixture(scope="module")
def stepped(exported, images, run_jax, tmp_path_factory):
    """Of each network: the states, what the native step makes of them, and what the exported one
    does.
    """
    folder, native = tmp_path_factory.mktemp("steps"), {}
    for what, (arm, settings) in RUNS.items():
        run = named(exported, arm, **settings)
        key = exported.experiments[run.name]["program"]
        described = exported.programs[key]
        initial = starting_values(described, {"parameters": run.parameters()})
        tf.keras.backend.clear_session()
        model = network.build(run, images.image_shape, images.classes)
        network.compile_model(model, run)
        variables = {
            path: variable for path, (variable, _, _) in exporter._variables(model, run).items()
        }
        train = tf.function(lambda x, y, model=model: model.train_step((x, y))["loss"])
        given, native[what] = {}, (key, {})
        for number in range(STATES[what]):
            state = drawn(described, initial, number, closed=number % 2 == 1)
            chosen = np.random.default_rng(1000 + number).permutation(len(images.train[0]))[
                : run.batch_size
            ]
            x = (
                images.train[0][chosen] * np.float32(images.scale[0]) + np.float32(images.scale[1])
            ).astype(np.float32)
            for path, value in state.items():
                variables[path].assign(value)
            loss = float(train(tf.constant(x), tf.constant(images.train[1][chosen])))
            native[what][1][number] = (
                loss,
                state,
                {path: variable.numpy() for path, variable in variables.items()},
            )
            given |= {
                f"{number}|{path}": value
                for path, value in {"x": x, "y": images.train[1][chosen], **state}.items()
            }
        np.savez(folder / f"{key}.npz", **given)
    run_jax(SCRIPT, "step", exported.folder, folder)
    return {
        what: (key, states, np.load(folder / f"{key}.results"))
        for what, (key, states) in native.items()
    }


@pytest.mark.long
@pytest.mark.parametrize("what", RUNS)
def test_exported_and_native_steps_agree(exported, stepped, what):
    """From states with and without closed weights: loss and every updated variable within 1e-5
    relative (of the variable's norm; under Keras 3 one of them came out at 1.1e-5), and every mask
    bit whose logit is further than rounding from its threshold; whichever place of the chunk the
    batch stands at.
    """
    key, states, results = stepped[what]
    trained = {path for _, path in exported.programs[key]["train"]["updates"]}
    worst = {}
    for number, (loss, before, after) in states.items():
        assert float(results[f"{number}|loss"]) == pytest.approx(loss, rel=1e-5)
        for path in trained:
            found, native = (
                results[f"{number}|{path}"].astype(np.float64),
                after[path].astype(np.float64),
            )
            worst[path] = max(
                worst.get(path, 0.0),
                np.linalg.norm((found - native).ravel()) / np.linalg.norm(native.ravel()),
            )
            if path.endswith("_logits") and what != "top_k":  # those rank
                sure = np.abs(native) > 1e-5
                assert np.array_equal((found > 0)[sure], (native > 0)[sure])
        assert {
            path for path in after if not np.array_equal(after[path], before[path])
        } <= trained, "natively nothing else moves"
    bound = 1e-5 if _keras.KERAS == 2 else 2e-5
    assert max(worst.values()) <= bound, sorted(worst.items(), key=lambda item: -item[1])[:5]
    print(f"largest distance of {what}: {max(worst.values()):.1e}")


def test_networks_share_their_programs(exported, images):
    """Runs whose network and step are the same share a program, whatever their seed, rate, start or
    protocol; drawn masks do not.
    """
    key = {name: entry["program"] for name, entry in exported.experiments.items()}
    mask, weights = (
        named(exported, "mask", estimator="threshold", seed=0).name,
        named(exported, "weights", precision=None).name,
    )
    assert (
        key[named(exported, "mask", estimator="threshold", seed=1).name]
        == key[mask]
        != key[weights]
    )
    assert (
        key[named(exported, "finetune").name]
        == key[named(exported, "weights_long").name]
        == key[weights]
    )
    assert len(exported.programs) == 5 and len(exported.experiments) == 8
    drawing = [Experiment(estimator="bernoulli", seed=seed) for seed in (0, 1)]
    assert exporter._key(drawing[0], images) != exporter._key(drawing[1], images)


def test_bundle_holds_no_arrays_and_no_paths(exported):
    """θ0 is a recipe: a bundle is as small for a wide network as for a narrow one. And nothing in
    it names this machine.
    """
    from tensorflow.compiler.xla.service import hlo_pb2

    for file in exported.folder.glob("programs/*.hlo"):
        content = file.read_bytes()
        assert (
            str(Path.home()).encode() + b"/" not in content
            and str(Path(exporter.__file__).parent).encode() not in content
        )
        module = hlo_pb2.HloModuleProto.FromString(content)
        literals = [
            i.literal.ByteSize()
            for computation in module.computations
            for i in computation.instructions
            if i.HasField("literal")
        ]
        assert max(literals) < 200, file
    assert sum(file.stat().st_size for file in exported.folder.glob("**/*") if file.is_file()) < 3e6


def test_programs_go_to_any_accelerator(exported, run_jax, tmp_path):
    """JAX hands a program to an accelerator as StableHLO, which lacks words that XLA has: all of
    the programs can be written in it.
    """
    run_jax(SCRIPT, "portable", exported.folder, tmp_path)
    programs = {file.stem for file in exported.folder.glob("programs/*.hlo")}
    assert {file.stem for file in tmp_path.glob("*.mlir")} == programs
    with_batch_norm = [key for key, n in exported.programs.items() if "statistics" in n]
    assert len(with_batch_norm) == 2 and len(programs) == 3 * len(exported.programs) + 2


@pytest.mark.parametrize("arm, seed", [("mask", 0), ("mask", 1), ("weights", 0)])
def test_recipes_give_what_the_network_starts_with(exported, images, arm, seed):
    """Every initial value by recipe has the bits of the native network's, for a seed, logit and
    initializer of its own too.
    """
    run = named(exported, arm, seed=seed, model="wide_resnet")
    entry = exported.experiments[run.name]
    model = network.build(run, images.image_shape, images.classes)
    network.compile_model(model, run)
    values = starting_values(exported.programs[entry["program"]], entry)
    variables = exporter._variables(model, run)
    assert values.keys() == variables.keys()
    for path, (variable, _, _) in variables.items():
        assert (
            np.array_equal(values[path], variable.numpy())
            and values[path].dtype == variable.numpy().dtype
        ), path
    if seed == 1:
        assert values["conv/kernel_logits"].min() == np.float32(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm, settings",
    [
        ("finetune", {}),
        ("finetune", {"reset_batch_norm": True}),
        ("rewind", {}),
        ("random_mask", {}),
        ("shuffled_mask", {}),
        ("weights_long", {}),
        ("ticket", {}),
        ("prune", {"scope": "global"}),
        ("evil", {}),
        ("reinit", {}),
        ("reinit", {"redraw": "magnitudes", "reinit_seed": 5}),
        ("reinit", {"redraw": "permuted"}),
    ],
)
def test_arms_take_over_what_they_do_natively(images, tmp_path, arm, settings):
    """From one parent's record, an arm starts with the same bits by recipe as in TensorFlow."""
    shared = {"dataset": "digits", "depth": 10, "width": 1, "epochs": 1}
    parent = Experiment(arm=ARMS[arm].parents[0], **shared)
    random = np.random.default_rng(0)
    model = network.build(parent, images.image_shape, images.classes)
    masks = {
        path: random.random(mask.shape) < 0.7 if parent.arm == "mask" else mask
        for path, mask in model.masks().items()
    }
    state = {
        path: random.uniform(0.5, 1.5, v.shape).astype(np.float32)
        for path, v in network.batch_norm(model).items()
    }
    weights = {
        path: random.standard_normal(v.shape).astype(np.float32)
        for path, v in network.weights(model).items()
    }
    table = pd.DataFrame({"epoch": [1]})
    record = records.write_run(
        tmp_path / parent.name,
        parent.parameters() | {"parent": None},
        table,
        table,
        masks,
        state,
        {},
    )
    if parent.arm == "weights":
        records.write_weights(record, weights)
    run = Experiment(arm=arm, init_from=parent.name, **shared, **settings)
    model = network.build(run, images.image_shape, images.classes)
    starting.start(model, run, record, images)
    network.compile_model(model, run)
    variables = exporter._variables(model, run)
    described = {
        "variables": {
            path: {
                "role": role,
                "shape": v.shape.as_list(),
                "dtype": tf.as_dtype(v.dtype).base_dtype.name,
                "recipe": recipe,
            }
            for path, (v, role, recipe) in variables.items()
        }
    }
    held = (
        {f"{path}_logits": mask for path, mask in masks.items()}
        | state
        | (weights if parent.arm == "weights" else {})
    )
    values = starting_values(
        described, {"parameters": run.parameters(), "arm": exporter._arm(run)}, held
    )
    for path, (variable, _, _) in variables.items():
        assert np.array_equal(values[path], variable.numpy()), path


def test_bfloat16_computes_in_it_and_keeps_float32(exported):
    """Products in bfloat16 but for the last layer's, whose logits a softmax takes; every variable
    is float32.
    """
    from tensorflow.compiler.xla import xla_data_pb2
    from tensorflow.compiler.xla.service import hlo_pb2

    key = exported.experiments[named(exported, "weights", precision="mixed_bfloat16").name][
        "program"
    ]
    module = hlo_pb2.HloModuleProto.FromString(
        (exported.folder / f"programs/{key}-evaluate.hlo").read_bytes()
    )
    products = [
        i.shape.element_type
        for computation in module.computations
        for i in computation.instructions
        if i.opcode == "dot"
    ]
    assert products == [xla_data_pb2.BF16, xla_data_pb2.BF16, xla_data_pb2.F32]
    assert {v["dtype"] for v in exported.programs[key]["variables"].values()} == {
        "float32",
        "int64",
    }


@pytest.mark.slow
def test_multiply_adds_are_counted(exported):
    """Of a dense network they are its kernels' sizes; the post's network takes some 20 GFLOP an
    image and training step.
    """
    lenet = exported.programs[
        exported.experiments[named(exported, "mask", estimator="top_k").name]["program"]
    ]
    assert lenet["multiply_adds"] == 64 * 300 + 300 * 100 + 100 * 10
    model = models.wide_resnet(28, 8)
    assert 3 * 2 * exporter._multiply_adds(model) == pytest.approx(20e9, rel=0.1)


def test_record_is_exported_with_its_line(tmp_path):
    """An experiment.json brings the runs that it starts from, first."""
    parent = Experiment(arm="mask", depth=10)
    child = Experiment(arm="finetune", depth=10, init_from=parent.name)
    (tmp_path / "experiment.json").write_text(
        json.dumps(child.parameters() | {"parent": parent.parameters() | {"parent": None}})
    )
    assert exporter._experiments([tmp_path / "experiment.json", tmp_path / "experiment.json"]) == [
        (experiment, tmp_path.parent.name) for experiment in (parent, child)
    ]


def test_digits_travel_along(exported, images):
    """A dataset that nobody has as a file is in the bundle, and is the same."""
    again = data.load(str(exported.folder / "digits.npz"))
    assert again.fingerprint == images.fingerprint and np.array_equal(
        again.train[0], images.train[0]
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: {arm: mask, strategy: mirrored}", "a bundle has no strategy"),
        ("a: {arm: weights, optimizer: sgd}", "a bundle has optimizer='adam' only"),
        ("a: {arm: mask, augment: crop}", "a bundle has augment=True or False only"),
        (
            "a: {arm: mask, epochs: 3}\n  b: {arm: mask_long, from: a, epochs: 1}",
            "arm='mask_long', which a bundle does not have",
        ),
        ("a: {arm: mask, estimator: signed}", "estimator='signed', which a bundle does not have"),
        (
            "a: {arm: mask, estimator: top_k, scope: global}",
            "and scope='global', which a bundle does not have",
        ),
        ("a: {arm: mask, estimator: top_k, coats: 2}", "a bundle has no coats"),
        ("a: {arm: mask, randomize_every: 5}", "a bundle has no randomize_every"),
        (
            "a: {arm: weights, epochs: 3}\n  b: {arm: ticket, from: a, rewind_epochs: 1}",
            "a bundle has rewind_epochs=0 only",
        ),
        ("a: {arm: mask, batch_size: 1295}", "more than the 1294 training images"),
        (
            "a: {arm: finetune, init_from: digits-wide_resnet-mask-s0-00000000}",
            "which is not in the file",
        ),
    ],
)
def test_what_no_bundle_can_run_is_refused(tmp_path, text, words):
    """One sentence before anything is compiled."""
    (tmp_path / "mine.yml").write_text(f"runs:\n  {text}\n")
    with pytest.raises(ValueError, match=words):
        exporter.export([tmp_path / "mine.yml"], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_bundle_that_exists_is_left_alone(exported, tmp_path):
    """`export` never writes over a folder."""
    with pytest.raises(FileExistsError, match="give another folder"):
        exporter.export(["never read"], exported.folder)


@pytest.mark.slow
def test_estimator_with_a_tensor_of_its_own(tmp_path):
    """What a program could not hold is told, with what to do."""
    half = tf.constant(0.5)

    def mine(logits):
        return half * logits

    estimators.register(mine)
    (tmp_path / "mine.yml").write_text(
        "runs: {a: {arm: mask, model: lenet_300_100, estimator: mine}}"
    )
    try:
        with pytest.raises(ValueError, match="make its constants inside"):
            exporter.export([tmp_path / "mine.yml"], tmp_path / "bundle")
    finally:
        del estimators._KNOWN["mine"]
