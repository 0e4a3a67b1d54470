"""Many tasks on one network: no task disturbs another, and which task it is can be inferred."""

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import layers, tasks

IMAGES = sm.data.load("digits")


def task_images(number: int):
    """The digits with their pixels in the order of a task, standardised: training and test."""
    order = np.random.default_rng(number).permutation(64)
    mean, deviation = IMAGES.train[0].mean(), IMAGES.train[0].std()

    def fed(split):
        x, y = split
        moved = x.reshape(len(x), 64)[:, order].reshape(x.shape)
        return ((moved - mean) / deviation).astype(np.float32), y

    return fed(IMAGES.train), fed(IMAGES.test)


def small(rate: float = 1e-3, **options) -> tasks.Tasks:
    many = tasks.Tasks(tasks.network((8, 8, 1), (60, 60), 30, seed=1), **options)
    many.model.compile(
        tf.keras.optimizers.RMSprop(rate, rho=0.99, epsilon=1e-16),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return many


def learn(many: tasks.Tasks, number: int, epochs: int = 4) -> None:
    x, y = task_images(number)[0]
    many.learn(f"task{number}", x, y, epochs=epochs, batch_size=32, shuffle=False, verbose=0)


def accuracy(many: tasks.Tasks, number: int) -> float:
    x, y = task_images(number)[1]
    return float((many.predict(x, f"task{number}").argmax(axis=1) == y).mean())


@pytest.fixture(scope="module")
def five():
    """Five tasks, and what the first one made of its test images before the others came."""
    many = small()
    learn(many, 0)
    before = many.predict(task_images(0)[1][0], "task0")
    for number in range(1, 5):
        learn(many, number)
    return many, before


@pytest.mark.slow
def test_the_first_of_five_tasks_keeps_every_bit(five):
    """After the last task all are known, none at chance, and the first one's outputs are the same
    bits.
    """
    many, before = five
    np.testing.assert_array_equal(many.predict(task_images(0)[1][0], "task0"), before)
    assert min(accuracy(many, number) for number in range(5)) > 0.85
    for layer in layers.masked_layers(many.model):
        kernel = layer.kernel.numpy()
        first = sm.initializers.signed_kaiming_constant(1, f"{layer.name}/kernel", kernel.shape)
        np.testing.assert_array_equal(kernel, first)


@pytest.mark.slow
def test_a_task_is_inferred_from_its_images(five):
    """One gradient step finds the task, of many images and mostly of one; among those asked."""
    many, _ = five
    for number in range(5):
        x = task_images(number)[1][0]
        assert many.infer(x) == [f"task{number}"]
        alone = many.infer(x[:40], size=1)
        assert len(alone) == 40 and alone.count(f"task{number}") > 30
        np.testing.assert_array_equal(many.predict(x), many.predict(x, f"task{number}"))
    others = ["task1", "task2"]
    assert set(many.infer(task_images(0)[1][0], size=100, among=others)) <= set(others)


@pytest.mark.slow
def test_the_derivatives_are_those_of_the_entropy():
    """∂H/∂αᵢ by one backward pass agrees with differences of H where the masks are mixed."""
    many = small()
    for number in range(3):
        learn(many, number, epochs=1)
    x = task_images(1)[1][0][:20]
    thetas = {f"{la.name}/kernel": la.kernel.numpy() for la in layers.masked_layers(many.model)}

    def entropy(alphas):
        out = x.reshape(len(x), -1).astype(np.float64)
        for path, theta in thetas.items():
            mixed = sum(a * many.masks(f"task{k}")[path] for k, a in enumerate(alphas))
            out = out @ (theta.astype(np.float64) * mixed)
            out = out if path == "dense3/kernel" else np.maximum(out, 0)
        logs = out - out.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        return -(np.exp(logs) * logs).sum(axis=1).mean()

    step, slopes = 1e-5, []
    gradient = many._entropy_gradient(many.names)(x)
    for k in range(3):
        up, down = np.full(3, 1 / 3), np.full(3, 1 / 3)
        up[k], down[k] = up[k] + step, down[k] - step
        slopes.append((entropy(up) - entropy(down)) / (2 * step))
    found = [float(gradient @ many._flat(name)) for name in many.names]
    np.testing.assert_allclose(found, slopes, rtol=2e-3)


@pytest.mark.slow
def test_what_a_mask_becomes_does_not_depend_on_the_tasks_before():
    """Logits and optimizer start anew: a task learned second is as if it were the first."""
    one, two = small(), small()
    learn(one, 1, epochs=1)
    learn(two, 0, epochs=1)
    learn(two, 1, epochs=1)
    for path, mask in one.masks("task1").items():
        np.testing.assert_array_equal(mask, two.masks("task1")[path])
        assert (mask != two.masks("task0")[path]).mean() > 0.2, "each task draws its own scores"


def test_files(five, tmp_path):
    """One packed file per task, read alone by `load` or together; learning goes on from them."""
    many, before = five
    written = many.save(tmp_path)
    assert [path.name for path in written] == [f"task{n}.supermask" for n in range(5)]
    again = tasks.Tasks.load(tmp_path)
    assert again.names == many.names and again.start is None
    x = task_images(0)[1][0]
    np.testing.assert_array_equal(again.predict(x, "task0"), before)
    np.testing.assert_array_equal(sm.load(written[0]).predict(x, verbose=0), before)
    contents = written[0].read_bytes()
    again.model.compile(many.model.optimizer.from_config(many.model.optimizer.get_config()), "mse")
    x, y = task_images(5)[0]
    again.learn("task5", x, np.eye(30)[y], epochs=1, verbose=0)
    assert [path.name for path in again.save(tmp_path, ["task5"])] == ["task5.supermask"]
    assert written[0].read_bytes() == contents
    assert again.save(tmp_path, ["task0"])[0].read_bytes() == contents


def test_files_of_two_networks(tmp_path):
    """Masks over another θ0 are refused."""
    many, other = small(), tasks.Tasks(tasks.network((8, 8, 1), (60, 60), 30, seed=2))
    for one, name in ((many, "a"), (other, "b")):
        one._keep(name, one.model.masks())
        one.save(tmp_path)
    with pytest.raises(ValueError, match="'a' and 'b' .* of different networks: keep"):
        tasks.Tasks.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no .supermask file"):
        tasks.Tasks.load(tmp_path / "none")


def test_constant_start():
    """Logits may start at a number, which the files remember."""
    many = small(start=0.5)
    many._begin("a")
    assert all((la.kernel_logits.numpy() == 0.5).all() for la in layers.masked_layers(many.model))


@pytest.mark.parametrize(
    "does, says",
    [
        (lambda many: many.learn("a b"), "task='a b' can't name a file: give letters"),
        (lambda many: many.learn("../a"), "can't name a file"),
        (lambda many: many.learn("a"), "'a' is learned already: give another name"),
        (lambda many: many.masks("b"), r"Unknown task 'b': choose among those learned \(a\)"),
        (lambda many: many.infer(np.zeros((0, 8, 8, 1))), "give at least one image"),
        (lambda many: many.infer(np.zeros((1, 8, 8, 1)), among=[]), "learn a task first"),
    ],
)
def test_mistakes(does, says):
    """Each mistake is told in a sentence that says what to do."""
    many = small()
    many._keep("a", many.model.masks())
    with pytest.raises(ValueError, match=says):
        does(many)


def test_weights_that_others_use_are_not_trained():
    """In another phase nothing is learned."""
    many = small()
    many.model.phase = "both"
    with pytest.raises(ValueError, match="phase 'both', in which weights train"):
        many.learn("a")


@pytest.mark.parametrize(
    "model, says",
    [
        (lambda: sm.models.wide_resnet(10, 1, (8, 8, 1)), "has a normalisation, which all tasks"),
        (lambda: sm.models.lenet_300_100((8, 8, 1), rescale="root"), "rescales by the fraction"),
        (
            lambda: sm.models.lenet_300_100(
                (8, 8, 1), estimator="bernoulli", draw_at_evaluation=True
            ),
            "draws masks at evaluation",
        ),
    ],
)
def test_networks_that_tasks_can_not_share(model, says):
    """What one task would change for the others is refused."""
    with pytest.raises(ValueError, match=says):
        tasks.Tasks(model())


@pytest.mark.slow
def test_other_networks_serve_too():
    """A convolutional network with biases and an estimator that draws: learned and inferred."""
    model = sm.models.conv_net(2, (8, 8, 1), estimator="bernoulli", seed=3)
    many = tasks.Tasks(model, start=0.0)
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = task_images(0)[0]
    many.learn("a", x[:64], y[:64], batch_size=32, verbose=0)
    many.learn("b", x[:64, ::-1], y[:64], batch_size=32, verbose=0)
    assert "conv1/bias" in many.masks("a") and many.infer(x[:64])[0] in ("a", "b")
