"""One network, many tasks: what the records of `supermask tasks` say."""

import html
from functools import cache

import pandas as pd

from ...records import TasksRecord, load_tasks
from .. import many_tasks, plots
from .book import NOT_YET, Book, percent, without_index

# The numbers of tasks that the page asks about, and the steps of an epoch of 55,000 images.
_ASKED, _EPOCH = (5, 50, 250), 429


@cache
def records(book: Book, source: str = "permuted_mnist") -> list[TasksRecord]:
    """The records of a source."""
    return many_tasks.chosen(load_tasks(book.checkout / "runs" / "tasks"), source=source)


def _of(book: Book, tasks: int, steps: int) -> list[TasksRecord]:
    return many_tasks.chosen(records(book), tasks=tasks, steps=steps)


def _largest(book: Book) -> TasksRecord | None:
    """The record of the most tasks."""
    every = records(book)
    return max(every, key=lambda r: r.parameters["tasks"]) if every else None


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    published = _published(book)
    five = many_tasks.by_study(_of(book, 5, _EPOCH))
    found = {
        "five": _accuracy(five) if len(five) else NOT_YET,
        "five_published": percent(published.accuracy[published.tasks == 5].iloc[0]),
        "many_published": percent(published.accuracy[published.tasks == 250].iloc[0]),
    }
    for tasks in _ASKED:
        rows = many_tasks.by_study(_of(book, tasks, 1000))
        found[f"after_{tasks}"] = _accuracy(rows) if len(rows) else NOT_YET
    return found | _of_largest(book) | _of_datasets(book)


def _of_largest(book: Book) -> dict[str, str]:
    """What the page says of the network with the most tasks."""
    names = (
        "most", "most_accuracy", "same", "task_bytes", "all_bytes", "all_networks", "told_128",
        "told_1", "lowest", "weights", "kept",
    )  # fmt: skip
    record = _largest(book)
    if record is None:
        return dict.fromkeys(names, NOT_YET)
    table, bytes_ = record.table, many_tasks.sizes(record)
    found, every = many_tasks.accuracies(record), many_tasks.by_study(records(book))
    values = (
        str(len(table)),
        percent(found["given"]),
        f"{every.same.sum()} of {every.n.sum()}",
        f"{bytes_['task'] / 1000:.1f} kB",
        f"{bytes_['all'] / 1e6:.1f} MB",
        f"{bytes_['networks'] / 1e6:.0f} MB",
        percent(found["told_128"]),
        percent(found["told_1"]),
        percent(table.after_last.min()),
        f"{bytes_['weights']:,}",
        percent(table.kept.mean()),
    )
    return dict(zip(names, values))


def _of_datasets(book: Book) -> dict[str, str]:
    """What the page says of three datasets on one network."""
    found = many_tasks.by_study(records(book, "datasets"))
    return {
        "sets_told_128": percent(found.told_128.mean()) if len(found) else NOT_YET,
        "sets_told_1": percent(found.told_1.mean()) if len(found) else NOT_YET,
    }


def _published(book: Book) -> pd.DataFrame:
    """What Wortsman et al. report, with the number of `tasks` and a fraction `accuracy`."""
    field = book.table("book/published/field.csv")
    rows = field[field.work == "wortsman2020"]
    tasks = rows.what.str.extract(r"^(\d+) tasks", expand=False).astype(int)
    return rows.assign(tasks=tasks, accuracy=rows.accuracy_percent / 100)


def _accuracy(rows: pd.DataFrame) -> str:
    """The accuracy of a study with the task given."""
    row = rows.iloc[0]
    return f"{100 * row.given:.1f} %"


def _half(row) -> str:
    return "" if pd.isna(row.half) else f" ± {100 * row.half:.1f}"


def figure(book: Book):
    """Every task's accuracy after the last: one panel per number of tasks."""
    shown = [_of(book, 5, _EPOCH), *(_of(book, tasks, 1000) for tasks in _ASKED[1:])]
    panels = [found[0] for found in shown if found]
    return many_tasks.figure(panels, _published(book)) if panels else "No record yet."


def table(book: Book):
    """One row per number of tasks and length of training, ours beside the published."""
    rows = [
        {
            "tasks": str(int(row.tasks)),
            "steps each": f"{int(row.steps):,}",
            "task given": f"{100 * row.given:.2f}{_half(row)}",
            "worst task": f"{100 * row.lowest:.2f}",
            "inferred from 128 images": f"{100 * row['128 images']:.2f}",
            "from one image": f"{100 * row['one image']:.1f}",
            "one image: told rightly": f"{100 * row.told_1:.1f}",
            "seeds": str(int(row.seeds)),
        }
        for _, row in many_tasks.by_study(records(book)).iterrows()
    ]
    return without_index(pd.DataFrame(rows)) if rows else "No record yet."


def published(book: Book):
    """The published accuracies: one row each."""
    rows = [
        {
            "tasks": row.what,
            "network": row.network,
            "accuracy": f"{row.accuracy_percent:.2f}",
            "seen in": row.seen_in,
        }
        for row in _published(book).itertuples()
    ]
    return without_index(pd.DataFrame(rows))


def datasets(book: Book):
    """Three datasets on one network: one row per dataset, means over seeds."""
    tables = [record.table for record in records(book, "datasets")]
    if not tables:
        return "No record yet."
    groups = pd.concat(tables).groupby("task", sort=False)
    rows = [
        {
            "task": plots.DATASET_NAMES[task],
            "test accuracy, task given": f"{100 * found.after_last.mean():.2f}",
            "told from 128 images": f"{100 * found.told_128.mean():.1f}",
            "told from one image": f"{100 * found.told_1.mean():.0f}",
            "bytes of its file": f"{found.bytes.mean():,.0f}",
            "seeds": str(len(found)),
        }
        for task, found in groups
    ]
    return without_index(pd.DataFrame(rows))


def evidence(book: Book):
    """The foldable line: which records, which commands, and on what."""
    from IPython.display import HTML  # here, since only a page needs it

    every = records(book) + records(book, "datasets")
    machines = sorted({
        f"{r.facts['processor']}, {r.facts['threads']} thread"
        f"{'s' * (r.facts['threads'] != 1)}, TensorFlow {r.facts['versions']['tensorflow']}"
        for r in every
    })  # fmt: skip
    items = "".join(
        f"<li>runs/tasks/{html.escape(r.path.name)}: <code>{html.escape(_command(r))}</code></li>"
        for r in every
    )
    return HTML(
        f'<details class="evidence"><summary>The evidence: {len(every)} records of many tasks'
        f"</summary><p>Made on {html.escape('; '.join(machines))}.</p><ul>{items}</ul></details>"
    )


def _command(record: TasksRecord) -> str:
    """What makes the record again."""
    asked = record.parameters
    options = " ".join(
        f"--{name.replace('_', '-')} {asked[name]}" for name in ("source", "tasks", "steps", "seed")
    )
    return f"supermask tasks {options}"
