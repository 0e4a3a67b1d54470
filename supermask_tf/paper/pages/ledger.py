"""What does a byte buy?: test accuracy by the bytes of the network's file."""

import html
from functools import cache

import pandas as pd

from .. import ledger, plots
from .book import NOT_YET, Book, percent, without_index

STUDIES = ("bytes_lenet", "bytes_widths", "bytes_conv2")
# Budgets of the table, in bytes.
_BUDGETS = (4_000, 6_000, 12_000, 25_000, 50_000, 100_000, 300_000, 1_000_000)
_SENTENCES = ("mnist", "fashion_mnist")


@cache
def rows(book: Book) -> pd.DataFrame:
    """The rows of `supermask bytes` of all studies; none where none has begun."""
    tables = [
        book.table(f"runs/{study}/ledger.csv").assign(study=study)
        for study in STUDIES
        if (book.checkout / "runs" / study / "ledger.csv").is_file()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


@cache
def points(book: Book) -> pd.DataFrame:
    """One row per setting: `ledger.points`."""
    return ledger.points(rows(book)) if len(rows(book)) else pd.DataFrame(columns=["dataset"])


def _of(book: Book, dataset: str) -> pd.DataFrame:
    found = points(book)
    return found[found.dataset == dataset]


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    table = rows(book)
    found = {f"wins_{dataset}": wins(_of(book, dataset)) for dataset in _SENTENCES}
    found["seeds"] = seeds(table)
    found["epochs"] = "/".join(str(n) for n in sorted(set(table.epochs))) if len(table) else NOT_YET
    return found | _examples(book) | _widths(book)


def seeds(table: pd.DataFrame) -> str:
    """How many seeds a setting has: "one", "2 to 5"."""
    if not len(table):
        return "no"
    setting = ["dataset", "units", "arm", "estimator", "initializer", "density", "density_start"]
    counts = table.groupby(setting, dropna=False).seed.nunique()
    low, high = counts.min(), counts.max()
    return ("one" if high == 1 else str(high)) if low == high else f"{low} to {high}"


def wins(found: pd.DataFrame) -> str:
    """Which kind of file is best from how many bytes on, in a sentence's words."""
    if not len(found):
        return NOT_YET
    names = {"supermask": "a supermask", "ticket": "a pruned ticket", "trained": "trained weights"}
    changes = ledger.ranges(found)
    told = [f"{names[changes[0][1]]} from {_kilobytes(changes[0][0])}"]
    told += [f"{names[kind]} from {_kilobytes(start)}" for start, kind in changes[1:]]
    return ", ".join(told[:-1]) + " and " * (len(told) > 1) + told[-1] + " on"


def _examples(book: Book) -> dict[str, str]:
    """Accuracies of the settings that the page names, on MNIST."""
    found = _of(book, "mnist")
    signed = "top_k, signed constants"
    wanted = {
        "mask_5": {"what": signed, "density": 0.05, "units": 300, "density_start": -1},
        "mask_50": {"what": signed, "density": 0.5, "units": 300},
        "ticket_5": {"kind": "ticket", "density": 0.05, "form": "sparse int8"},
        "float32": {"kind": "trained", "units": 300, "form": "float32"},
        "int8": {"kind": "trained", "units": 300, "form": "int8"},
    }
    told: dict[str, str] = {}
    for name, values in wanted.items():
        row = found
        for column, value in values.items() if len(found) else ():
            row = row[row[column] == value]
        told[name] = percent(row.accuracy.iloc[0]) if len(row) else NOT_YET
        told[f"{name}_bytes"] = _kilobytes(row.bytes.iloc[0]) if len(row) else NOT_YET
    return told


def _widths(book: Book) -> dict[str, str]:
    """What the page says of widths at equal bytes, on MNIST."""
    found = _widths_of(_of(book, "mnist"))
    if len(found) < 2:
        return {"widths": "not measured yet for more than one width"}
    told = [f"{percent(row.accuracy)} with {row.units} units" for row in found.itertuples()]
    return {"widths": ", ".join(told[:-1]) + " and " + told[-1]}


def _widths_of(found: pd.DataFrame) -> pd.DataFrame:
    """Supermasks over signed constants whose files are of equal bytes, by width."""
    if not len(found):
        return found
    densities = {150: 0.149, 300: 0.05, 600: 0.0178, 1200: 0.0061}
    fits = (
        (found.what == "top_k, signed constants")
        & (found.density == found.units.map(densities))
        & (found.density_start == 0.2)
    )
    return found[fits].sort_values("units")


def _kilobytes(size: float) -> str:
    return f"{size / 1000:.1f} kB" if size < 99_950 else f"{size / 1000:.0f} kB"


def figure(book: Book):
    """Test error by kilobytes, one panel per dataset."""
    return ledger.figure(points(book)) if len(points(book)) else "No record yet."


def budgets(book: Book):
    """What each kind of file makes of a budget: one row per dataset and budget."""
    shown = []
    for dataset in dict.fromkeys(points(book).dataset):
        table = ledger.at_budgets(_of(book, dataset), list(_BUDGETS))
        for _, row in table.iterrows():
            cells = {kind: _cell(row[kind]) for kind in ledger.KINDS}
            shown.append(
                {"dataset": plots.DATASET_NAMES[dataset], "at most": f"{row.budget // 1000:,} kB"}
                | {ledger.KINDS[kind][2]: text for kind, text in cells.items()}
                | {"supermask − best other, points": _points(row.difference)}
            )
    return without_index(pd.DataFrame(shown)) if shown else "No record yet."


def _cell(setting) -> str:
    if setting is None:
        return "–"
    half = "" if pd.isna(setting.half) else f" ± {100 * setting.half:.1f}"
    return f"{100 * setting.accuracy:.1f}{half} ({ledger.named(setting)})"


def _points(told) -> str:
    """A paired difference; of one seed there is no interval."""
    if told is None:
        return "–"
    if told.n == 1:
        return f"{told.mean:+.1f} (one seed)".replace("-", "−")
    return str(told)


def positions(book: Book):
    """Which way to say what is kept is smallest: one row per density of the 8-bit tickets."""
    if not len(rows(book)) or not (rows(book).form == "sparse int8").any():
        return "No record yet."
    table = ledger.sparse(rows(book))
    shown = [
        {
            "kept": f"{100 * row.density:g} %",
            "one bit per weight": f"{row.bits:,.0f}",
            "gaps, a byte each": f"{row.indices:,.0f}",
            "entropy-coded mask": f"{row.coded:,.0f}",
        }
        for row in table.itertuples()
    ]
    return without_index(pd.DataFrame(shown))


def widths(book: Book):
    """Supermasks of equal bytes by width: one row per dataset and width."""
    found = points(book)
    chosen = _widths_of(found) if len(found) else found
    shown = [
        {
            "dataset": plots.DATASET_NAMES[row.dataset],
            "units": f"{row.units}, {row.units // 3}",
            "kept": f"{100 * row.density:g} %",
            "bytes": f"{row.bytes:,.0f}",
            "test accuracy": f"{100 * row.accuracy:.1f}"
            + ("" if pd.isna(row.half) else f" ± {100 * row.half:.1f}"),
            "seeds": str(row.n),
        }
        for row in chosen.sort_values(["dataset", "units"], ascending=[False, True]).itertuples()
    ] if len(chosen) else []  # fmt: skip
    return without_index(pd.DataFrame(shown)) if shown else "No record yet."


def every_setting(book: Book):
    """Every setting that was measured: one row each, by dataset and bytes."""
    found = points(book)
    if not len(found):
        return "No record yet."
    ordered = found.sort_values(["dataset", "bytes"], ascending=[False, True])
    shown = [
        {
            "dataset": plots.DATASET_NAMES[row.dataset],
            "file": ledger.KINDS[row.kind][2],
            "which": ledger.named(row),
            "bytes": f"{row.bytes:,.0f}",
            "test accuracy": f"{100 * row.accuracy:.2f}"
            + ("" if pd.isna(row.half) else f" ± {100 * row.half:.2f}"),
            "seeds": str(row.n),
        }
        for _, row in ordered.iterrows()
    ]
    return without_index(pd.DataFrame(shown))


def evidence(book: Book):
    """The foldable line: which tables, which commands, how long it took and on what."""
    from IPython.display import HTML  # here, since only a page needs it

    table = rows(book)
    if not len(table):
        return HTML("")
    runs = table.drop_duplicates("run")
    machines = sorted({
        f"{row.processor}, {row.threads} thread{'s' * (row.threads != 1)}, TensorFlow "
        f"{row.tensorflow}"
        for row in runs.itertuples()
    })  # fmt: skip
    items = "".join(
        f"<li>runs/{study}/ledger.csv: <code>supermask bytes runs/studies/{study}.yml</code></li>"
        for study in dict.fromkeys(table.study)
    )
    minutes = runs.seconds.sum() / 60
    return HTML(
        f'<details class="evidence"><summary>The evidence: {len(table)} files of {len(runs)} runs, '
        f"{minutes:.0f} minutes of training</summary><p>Made on "
        f"{html.escape('; '.join(machines))}.</p><ul>{items}</ul></details>"
    )
