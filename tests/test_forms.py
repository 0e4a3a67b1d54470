"""A network as bytes: what is read back, and that each way to say what is kept says the same."""

import lzma

import numpy as np
import pytest

import supermask_tf as sm
from supermask_tf.studies import forms

X = np.random.default_rng(0).uniform(-1, 1, (40, 8, 8, 1)).astype(np.float32)


def ticket(density: float):
    """A small network of trained weights under a random mask."""
    random = np.random.default_rng(1)
    model = sm.models.lenet_300_100((8, 8, 1), units=30, seed=4, phase="weights")
    model.set_masks({
        path: random.random(mask.shape) < density
        for path, mask in model.masks().items()
        if path.endswith("kernel")
    })  # fmt: skip
    for layer in sm.layers.masked_layers(model):
        for variable in (layer.kernel, layer.bias):
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def masked_weights(model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{name}": weight.numpy()
        for layer in sm.layers.masked_layers(model)
        for name, weight in zip(("kernel", "bias"), layer.masked_weights())
    }


@pytest.mark.parametrize("positions", forms.POSITIONS)
@pytest.mark.parametrize("density", [0.003, 0.2, 1.0])
def test_sparse_files_are_read_back(positions, density):
    """Floats come back to the bit, 8 bits within half a step of each layer's scale."""
    model = ticket(density)
    whole = masked_weights(model)
    for precision in forms.PRECISIONS:
        found = forms.read_sparse(forms.sparse(model, precision, positions))
        assert found.keys() == whole.keys()
        for path, weight in whole.items():
            if precision == "float32":
                np.testing.assert_array_equal(found[path], weight)
            elif precision == "float16" or path.endswith("bias"):
                np.testing.assert_array_equal(found[path], weight.astype(np.float16))
            else:
                step = np.abs(weight).max() / 127
                assert np.abs(found[path] - weight).max() <= 0.501 * step
                assert not found[path][weight == 0].any()


def test_gaps_longer_than_a_byte():
    """A gap of 255 or more takes further bytes; the places come back."""
    places = np.array([0, 1, 255, 256, 511, 767, 3000])
    told = forms._gaps(places)
    assert len(told) == places.size + 1 + 8
    np.testing.assert_array_equal(forms._places(told), places)
    assert forms._places(forms._gaps(np.array([], int))).size == 0


@pytest.mark.slow
def test_forms_of_a_ticket():
    """All nine are told, and the entropy-coded mask is no larger than one bit per weight."""
    found = forms.forms(ticket(0.05), "ticket")
    assert len(found) == 9
    size = {(form.name, form.positions): len(form.data) for form in found}
    for precision in forms.PRECISIONS:
        name = f"sparse {precision}"
        assert size[name, "coded"] <= size[name, "bits"]
    assert size["sparse int8", "coded"] < size["sparse float16", "coded"]
    outputs = {form.positions: form.outputs(X) for form in found if form.name == "sparse int8"}
    np.testing.assert_array_equal(outputs["bits"], outputs["coded"])
    np.testing.assert_array_equal(outputs["bits"], outputs["indices"])


@pytest.mark.slow
def test_forms_of_trained_weights():
    """float32 predicts to the bit, the others nearly; each takes about half of the one before."""
    model = ticket(1.0)
    float32, float16, int8 = forms.forms(model, "weights")
    expected = model.predict(X, batch_size=500, verbose=0)
    np.testing.assert_array_equal(float32.outputs(X), expected)
    for form, off in ((float16, 0.02), (int8, 0.2)):
        assert 0 < np.abs(form.outputs(X) - expected).max() < off * np.abs(expected).max()
    assert 0.4 < len(float16.data) / len(float32.data) < 0.6 and len(int8.data) < len(float16.data)


@pytest.mark.slow
def test_the_form_of_a_supermask():
    """It is the packed file, which a compressor makes no smaller; what it holds is read back."""
    model = sm.models.lenet_300_100((8, 8, 1), seed=4)
    model.set_masks({"dense1/kernel": np.random.default_rng(0).random((64, 300)) < 0.3})
    (form,) = forms.forms(model, "mask")
    assert form.name == "supermask" and form.data.startswith(b"\x89SMASK")
    np.testing.assert_array_equal(form.outputs(X), model.predict(X, batch_size=500, verbose=0))


def test_unknown_arm():
    with pytest.raises(ValueError, match="arm='evil' has no forms: choose mask, weights"):
        forms.forms(ticket(0.5), "evil")


def test_the_compressor():
    """What does not shrink stays as it is; what does comes back."""
    noise = np.random.default_rng(0).bytes(1000)
    assert forms.compressed(noise) == noise
    small = forms.compressed(bytes(1000))
    assert len(small) < 50 and lzma.decompress(small, lzma.FORMAT_ALONE) == bytes(1000)
