"""What it costs: time and memory of a masked step."""

from .book import Book, percent

# The ratios in the page's sentences, with two digits: what was measured, and of which variant.
_RATIOS = {
    "wrn": ("WRN-16-1 training step", "mask"),
    "wrn_memory": ("WRN-16-1 peak memory", "mask"),
    "lenet": ("LeNet-300-100 training step", "mask"),
    "lenet_drawn": ("LeNet-300-100 training step", "mask, Bernoulli"),
    "lenet_top": ("LeNet-300-100 step by estimator", "top_k"),
    "lenet_sort": ("LeNet-300-100 step by estimator", "top_k by a sort"),
    "conv_top": ("Conv-2 step by estimator", "top_k"),
    "wrn_plain": ("WRN-16-1 prediction", "plain"),
    "lenet_plain": ("LeNet-300-100 prediction", "plain"),
    "wrn_compact": ("WRN-16-1 prediction", "compact"),
    "lenet_compact": ("LeNet-300-100 prediction", "compact"),
    "conv_sort": ("Conv-2 step by estimator", "top_k by a sort"),
    "current_wrn": ("WRN-16-1 mask step by environment", "current"),
    "current_lenet": ("LeNet-300-100 mask step by environment", "current"),
    "keras_3_wrn": ("WRN-16-1 training step, Keras 3", "mask"),
    "keras_3_lenet": ("LeNet-300-100 training step, Keras 3", "mask"),
    "deterministic": ("WRN-16-1 mask step, determinism", "op determinism"),
    "deterministic_lenet": ("LeNet-300-100 mask step, determinism", "op determinism"),
}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    results = book.table("benchmarks/results.csv")
    ratio = results.set_index(["what", "variant"]).ratio
    seconds = results.set_index("what").value
    return {name: f"{ratio[measured]:.2f}" for name, measured in _RATIOS.items()} | {
        "threads": str(results.threads.iloc[0]),
        "processor": results.processor.iloc[0],
        "pipeline": percent(ratio["input pipeline with augmentation", "one batch"]),
        "checkpoint": percent(ratio["WRN-16-1 epoch of 45,000 images", "its checkpoint"], 2),
        "overhead": f"{seconds['a run through papermill, without its training']:.1f}",
    }


def results(book: Book):
    """Everything that benchmarks/run.py measured."""
    columns = ["what", "variant", "ratio", "bound", "baseline", "value", "unit"]
    shown = book.table("benchmarks/results.csv")[columns]
    formats = {"value": "{:.4g}", "ratio": "{:.3f}", "bound": "{:.3g}"}
    return shown.style.hide(axis="index").format(formats, na_rep="")
