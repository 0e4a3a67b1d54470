"""Running it at scale: what the studies cost, and what XLA does."""

import pandas as pd

from ...records import RunSet
from .book import Book

_CORES = (1, 2, 8, 32)
_STUDIES = (
    "first", "lenet", "lenet_augmented", "wrn_mnist", "wrn_cifar10", "original", "ways_lenet",
    "ways_cifar10", "tickets_lenet",
)  # fmt: skip


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    runs, studies = _runs(book), costs(book)
    first = studies.loc["first"]
    wide = runs[runs.model == "wide_resnet"].images_per_second
    speed = book.table("benchmarks/results.csv").set_index(["what", "variant"]).ratio
    two = speed["a study of 12 small runs", "two workers"]
    xla = book.table("benchmarks/xla.csv")
    ratio = xla[xla.what == "XLA step over TensorFlow step"].set_index("network").value
    return {
        "first_hours": f"{first.hours:.1f}",
        "first_two": f"{max(first.hours / 2, first.chain):.1f}",
        "first_chain": f"{first.chain:.1f}",
        "faster": f"{1 / two:.1f}",
        "processor": runs.processor.iloc[0],
        "rate_low": f"{wide.min():.0f}",
        "rate_high": f"{wide.max():.0f}",
        "xla_slower": f"{ratio['WRN-10-1, CIFAR-10']:.1f}",
        "xla_lenet": f"{ratio['LeNet-300-100, MNIST']:.2f}",
        "xla_processor": f"{xla.processor.iloc[0]}, {xla.threads.iloc[0]} threads",
        "xla_versions": f"TensorFlow {xla.tensorflow.iloc[0]}, JAX {xla.jax.iloc[0]}",
        "paper_rates": at_the_posts_scale(book),
        "fair_rates": on_an_accelerator(book),
    }


def on_an_accelerator(book: Book) -> str:
    """How fast the fair test's residual networks were trained, and on what."""
    runs = book.runs("fair_wrn_10_2", "tune_wrn_10_2")
    if not len(runs):
        return "No record of it is here yet."
    made = runs.summary
    rates = made.epochs * made.train_images / made.seconds
    again = (100 * (made.test_accuracy - made.tensorflow_accuracy).abs()).dropna()
    return (
        f"The {len(runs)} WRN-10-2 of the fair test were trained on {made.processor.iloc[0]},"
        f" several side by side: each {rates.median() / 1000:.0f},000 images a second, and"
        f" {made.seconds.median():.0f} seconds a run (the median). TensorFlow tested"
        f" {len(again)} of them again on a CPU: its accuracies differ by at most {again.max():.2f}"
        " points."
    )


def at_the_posts_scale(book: Book) -> str:
    """How fast the runs of the study `paper` were trained, and on what."""
    runs = book.runs("paper")
    if not len(runs):
        return "no record of it is here yet"
    made = runs.summary
    return (
        f"its {len(runs)} records here were trained on {', '.join(sorted(set(made.processor)))} at "
        f"{made.images_per_second.median():.0f} images a second (the median run), "
        f"{made.seconds.median() / 60:.1f} minutes a run"
    )


def costs(book: Book) -> pd.DataFrame:
    """What each study cost.

    Returns:
        One row per study: `runs`, `images` (trained on, counted in every epoch), `hours` (of one
        core), `chain` (core-hours of the longest chain of a run, its parent, and so on).
    """
    table = _runs(book)
    hours = table.seconds * table.threads / 3600
    parents = {(study, run): (study, parent) for (study, run), parent in table.init_from.items()}

    def chain(run):
        return hours[run] + (chain(parents[run]) if parents[run] in parents else 0)

    table = table.assign(
        hours=hours,
        chain=[chain(run) for run in table.index],
        images=table.epochs * table.train_images,
    )
    return table.groupby("study").agg(
        runs=("hours", "size"),
        images=("images", "sum"),
        hours=("hours", "sum"),
        chain=("chain", "max"),
    )


def studies(book: Book):
    """What each study cost, and the hours that this makes on so many cores."""
    table = costs(book)
    columns = {
        "study": table.index,
        "runs": table.runs,
        "million images": table.images / 1e6,
        "core-hours": table.hours,
        "longest chain": table.chain,
    }
    for n in _CORES:
        name = f"{n} core{'s' * (n > 1)}"
        columns[name] = (table.hours / n).clip(lower=table.chain)
    shown = pd.DataFrame(columns).reset_index(drop=True)
    return shown.style.hide(axis="index").format(precision=2)


def evidence(book: Book) -> RunSet:
    """The runs of these studies."""
    return book.runs(*_STUDIES)


def xla(book: Book) -> pd.DataFrame:
    """What benchmarks/xla.py measured: one row per measurement, one column per network."""
    table = book.table("benchmarks/xla.csv")
    texts = [
        f"{float(f'{value:.3g}'):,g} {unit if isinstance(unit, str) else ''}"
        for value, unit in zip(table.value, table.unit)
    ]
    shown = table.assign(text=texts).pivot(index="what", columns="network", values="text")
    return shown.loc[list(dict.fromkeys(table.what))].rename_axis(index=None, columns=None)


def _runs(book: Book) -> pd.DataFrame:
    """The summary of all these runs, by study and run."""
    return evidence(book).summary.set_index(["study", "run"])
