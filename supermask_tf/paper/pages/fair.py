"""Is a supermask a good start? The six questions of the fair test, and their answers."""

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import fair, fair_plots, mask_plots, plots
from ..fair_words import MEANINGS, ROLES, answer, in_words, meant, still_open
from . import fair_tuning
from .book import NOT_YET, Book, by_study, signed, without_index
from .fair_parts import (
    accuracy,
    at_borrowed_rates,
    begun,
    folder,
    gap,
    nothing,
    tuned,
    values,
    written,
)  # fmt: skip

_AXES = {
    "same_time": "mask, then weights − dense for twice as long",
    "mask_for_free": "weights trained under the mask − dense",
    "this_mask": "under the mask − under the mask shuffled",
    "these_weights": "under the mask − under the mask over new weights",
    "replaces_training": "only the mask learned − dense",
}
# Planned with two seeds, which give no word: no study of those that are answered.
_TWO_SEEDS = {"fair_wrn_10_2_60": "WRN-10-2, CIFAR-10, 60 epochs"}
# Whose accuracy is shown before and after training, by the arm whose colour it has.
_CONTRASTED = {
    "rewind": "rewind", "shuffled": "shuffled_mask", "reinit": "reinit", "magnitudes": "mask_long",
}  # fmt: skip


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    tables = answers(book)
    found = {f"answer_{key}": answer_to(book, key) for key in fair.QUESTIONS}
    return found | {
        "answer": answer(tables, kept(book)),
        "contrast": contrast(book),
        "twice": twice(book),
        "seeds": seeds(book),
        "two_rates": two_rates(book),
        "head_start": head_start(book),
        "meaning": meaning(book),
        "budget": budget(book),
        "jumps": jumps(book),
        "logit": fair_tuning.best_logit(book),
        "open": still_open(tables),
        "planned": planned(book),
        "better_masks": fair_tuning.better_masks(book),
    }


def answers(book: Book) -> dict[str, pd.DataFrame]:
    """The five primary questions of each study that has runs, by the study's title."""
    return {study.title: fair.answers(study, runs) for study, runs in begun(book) if len(runs)}


def answer_to(book: Book, key: str) -> str:
    """The answer to a question, each number with its runs."""
    return _asked(book, key, in_words)


def _asked(book: Book, key: str, tell) -> str:
    """A question in the words of `tell`, which is `in_words` or `meant`."""
    question = fair.QUESTIONS[key]
    shown = {
        study.title: written(study, runs, question.first, question.second)
        for study, runs in begun(book)
    }
    return tell(answers(book), key, shown)


def kept(book: Book) -> dict[str, float]:
    """The share of the weights that each study's masks keep, in per cent, by its title."""
    off = {s.title: values(s, runs, "mask", "masked").points.mean() for s, runs in begun(book)}
    return {title: 100 - share for title, share in off.items() if share == share}


def _without_batch_norm(book: Book) -> list[tuple[fair.FairStudy, RunSet]]:
    """The studies whose masks can be read before training: an arm that begins with a batch norm of
    its own guesses, whatever its mask.
    """
    return [(study, runs) for study, runs in begun(book) if not study.batch_norm]


def contrast(book: Book) -> str:
    """What the masks read before the weights under them are trained, and after."""
    parts = []
    for study, runs in _without_batch_norm(book):
        told = [
            tuple(accuracy(study, runs, role, when) for when in ("start_accuracy", "test_accuracy"))
            for role in ("rewind", "shuffled", "reinit")
        ]
        if NOT_YET not in str(told):
            (own, own_end), (shuffled, shuffled_end), (new, new_end) = told
            parts.append(
                f"before a weight is trained, the masks read {own} of the test images; with their"
                f" places shuffled {shuffled}, and over new random weights {new}. Once the weights"
                f" under them are trained, it is {own_end}, {shuffled_end} and {new_end}"
                f" ({study.title})"
            )
    text = ". ".join(part[0].upper() + part[1:] for part in parts)
    return f"{text}." if parts else f"What masks read before and after training is {NOT_YET}."


def twice(book: Book) -> str:
    """Where the first two questions share their masked runs."""
    same = [study.title for study, _ in begun(book) if study.same_run("then_weights") == "rewind"]
    if not same:
        return ""
    return (
        f"On {' and '.join(same)} there is no batch norm, so nothing passes from the mask run to"
        " the weights but the mask: the masked runs are those of question 2, set against twice as"
        " long a training."
    )


def seeds(book: Book) -> str:
    """How many seeds of how many planned are in, the epochs and the margin, per study."""
    parts = []
    for study, runs in begun(book):
        table = fair.roles(runs, study)
        count = len(fair.differences(table, "rewind", "dense")) if len(table) else 0
        parts.append(
            f"{study.title}: T = {study.epochs} epochs, {count} of {study.seeds} seeds, differences"
            f" under {fair.MARGINS[study.dataset]:g} points too little to matter"
        )
    return "; ".join(parts) or "no study has begun"


def meaning(book: Book) -> str:
    """What the answers mean for someone who wants to use a mask."""
    told = [_asked(book, key, meant) for key in MEANINGS]
    return " ".join(filter(None, told)) or f"What it means is {NOT_YET}."


def two_rates(book: Book) -> str:
    """What the third and the fourth question give at the rates that their controls had borrowed
    before they were tuned, and whose best rate is the last one tried; "" where all were tuned
    first.
    """
    parts = []
    for study, runs in begun(book):
        earlier, own = at_borrowed_rates(study, runs), tuned(book, folder(study), study)
        if earlier is None:
            continue
        told = []
        for key in ("this_mask", "these_weights"):
            question = fair.QUESTIONS[key]
            if len(gap(earlier, runs, question.first, question.second)) > 1:
                number = written(earlier, runs, question.first, question.second)
                told.append(f"{number} ({question.title.lower().rstrip('?')})")
        taken = own[(own.role == "reinit") & (own.way == "threshold")]
        last = ", the last one tried" * bool(taken.edge.any())
        if told and len(taken):
            parts.append(
                f"On {study.title} the shuffled mask and the new weights were trained at two rates."
                f" The differences above are at their own, {taken.rate.iloc[0]:g}{last}. At"
                f" {study.borrowed['reinit']:g}, that of the mask's own weights, which they had"
                f" borrowed before they were tuned, they are {' and '.join(told)}."
            )
    return " ".join(parts)


def head_start(book: Book) -> str:
    """Where the mask's own weights end higher than its controls, and training is not at its end."""
    parts = []
    tables = answers(book)
    for study, runs in begun(book):
        longer = gap(study, runs, "dense_2t", "dense")
        better = (tables[study.title].word[["this_mask", "these_weights"]] == "better").any()
        if better and len(longer) and longer.mean() > fair.MARGINS[study.dataset]:
            alone = accuracy(study, runs, "mask", "test_accuracy")
            parts.append(
                f"On {study.title} this may be a head start. With the batch norm learned beside it,"
                f" the mask makes its own weights read {alone} before any is trained, and the dense"
                " network still gains from twice the epochs. Whether the gap outlasts a longer"
                f" training is {NOT_YET}."
            )
    return " ".join(parts)


def budget(book: Book) -> str:
    """Whether T was enough for the dense network: where twice as long ends surely higher."""
    more: list[str] = []
    enough: list[str] = []
    for study, runs in begun(book):
        points = gap(study, runs, "dense_2t", "dense")
        if len(points):
            margin = fair.MARGINS[study.dataset]
            gain = f"{written(study, runs, 'dense_2t', 'dense')} points"
            if len(points) == 1:
                gain = f"{signed(points[0], 1)} points, one seed"
            text = f"{study.title} ({gain})"
            (more if points.mean() > margin else enough).append(text)
    if not more and not enough:
        return f"What twice the epochs add to the dense network is {NOT_YET}."
    sentences = []
    if more:
        sentences.append(
            "Twice as many epochs lift the dense network by more than the margin on"
            f" {', '.join(more)}: there T is a budget and not the end of training."
        )
    if enough:
        sentences.append(
            "Twice as many epochs lift the dense network by less than the margin on"
            f" {', '.join(enough)}."
        )
    return " ".join(sentences)


def planned(book: Book) -> str:
    """What the page of claims plans and no record has yet."""
    titles = {name: study.title for name, study in fair.STUDIES.items()} | _TWO_SEEDS
    missing = [title for name, title in titles.items() if not len(book.runs(name))]
    for study, runs in begun(book):
        table = fair.roles(runs, study)
        parts = [] if table.way.str.startswith("top_k").any() else ["sparser masks"]
        parts += ["question 6"] if not (fair.jumps(study, runs).n > 1).all() else []
        if study.batch_norm and "batch_norm" not in set(table.role):
            parts.append("batch norm alone")
        if parts:
            missing.append(f"{study.title} ({', '.join(parts)})")
    return f"Planned and not run yet: {'; '.join(missing)}." if missing else ""


def jumped(book: Book) -> list[tuple[str, pd.DataFrame, list[str], list[str]]]:
    """The sixth question of each study that has it: its title, what `fair.jumps` returns, these
    gains as numbers with their runs, and where the masked and the dense network end.
    """
    found = []
    for study, runs in begun(book):
        table = fair.jumps(study, runs)
        if (table.n > 1).all():
            gains = [written(study, runs, *fair.JUMPS[key]) for key in table.index]
            ends = [
                accuracy(study, runs, role, "test_accuracy") for role in ("jump_weights", "dense")
            ]
            found.append((study.title, table, gains, ends))
    return found


def jumps(book: Book) -> str:
    """What T more epochs at 1e-5 add, per study."""
    parts = []
    for study, runs in begun(book):
        table = fair.jumps(study, runs)
        gains = [
            f"{key}: {written(study, runs, *fair.JUMPS[key])}" for key in table.index[table.n > 1]
        ]
        parts += [f"{study.title}: {', '.join(gains)} points"] if gains else []
    return "; ".join(parts) or NOT_YET


# --- figures and tables ---------------------------------------------------------------------------


def overview(book: Book):
    """All five questions: a row per question and study, a dot per seed."""
    rows = every_row(book)
    return fair_plots.gaps(rows, "first − second") if rows else nothing()


def same_time(book: Book):
    """The first question: a row per study, a dot per seed."""
    return _question(book, "same_time")


def mask_for_free(book: Book):
    """The second question."""
    return _question(book, "mask_for_free")


def this_mask(book: Book):
    """The third question."""
    return _question(book, "this_mask")


def these_weights(book: Book):
    """The fourth question."""
    return _question(book, "these_weights")


def replaces_training(book: Book):
    """The fifth question."""
    return _question(book, "replaces_training")


def _question(book: Book, key: str):
    tables = answers(book)
    rows = [_row(study, runs, key, study.title, tables) for study, runs in begun(book)]
    return _drawn(rows, _AXES[key])


def _row(
    study: fair.FairStudy, runs: RunSet, key: str, title: str, tables: dict[str, pd.DataFrame]
):
    """Of a question what `fair_plots.gaps` draws as a row."""
    question, word = fair.QUESTIONS[key], tables[study.title].word[key]
    points = gap(study, runs, question.first, question.second)
    return title, points, fair.MARGINS[study.dataset], word


def before_and_after(book: Book):
    """Accuracy before and after the weights are trained, of each start: a line per seed."""
    rows = []
    for study, runs in _without_batch_norm(book):
        for role, arm in _CONTRASTED.items():
            both = [
                values(study, runs, role, when).points.to_numpy()
                for when in ("start_accuracy", "test_accuracy")
            ]
            if len(both[0]) > 1 and len(both[0]) == len(both[1]):
                rows.append((study.title, ROLES[role], plots.ARM_COLOURS[arm], *both))
    return mask_plots.jumps(rows, "after training") if rows else nothing()


def beside(book: Book):
    """The controls beside the fourth question."""
    rows = []
    for study, runs in begun(book):
        for question in fair.BESIDE.values():
            points = gap(study, runs, question.first, question.second)
            title = f"{study.title}: {question.title[0].lower()}{question.title[1:]}"
            rows.append((title, points, fair.MARGINS[study.dataset], ""))
    return _drawn(rows, "first − second")


def jump_figure(book: Book):
    """The sixth question: what T more epochs at 1e-5 add."""
    rows = []
    for study, runs in begun(book):
        for name, (after, before) in fair.JUMPS.items():
            points = gap(study, runs, after, before)
            rows.append((f"{study.title}: {name}", points, fair.MARGINS[study.dataset], ""))
    return _drawn(rows, "after − before")


def accuracies(book: Book):
    """Mean test accuracy of each arm: one row per arm, one column per study."""
    columns = {}
    for study, runs in begun(book):
        table = fair.roles(runs, study)
        own = table[table.way.isin(["threshold", ""])].groupby("role").accuracy
        columns[study.title] = {
            ROLES[role]: f"{found.mean():.2f} %"
            + (f" ({len(found)} seeds)" if len(found) < table.seed.nunique() else "")
            for role, found in own
            if len(found) > 1
        }
    frame = pd.DataFrame(columns, index=pd.Index(ROLES.values())).dropna(how="all").fillna("")
    return frame.style


def numbers(book: Book):
    """All five comparisons with their intervals, p values and words."""
    parts = {}
    for study, runs in begun(book):
        table, rows = fair.answers(study, runs), []
        for key, row in table.iterrows():
            question = fair.QUESTIONS[key]
            low, high = _both_chances(study, runs, question)
            rows.append(
                {
                    "question": question.title,
                    "difference, points": f"{signed(row['mean'], 2)} ± {row.half:.2f}"
                    if row.n > 1
                    else "–",
                    "seeds and images": f"{signed(low, 2)} to {signed(high, 2)}"
                    if low == low and row.n > 1
                    else "–",
                    "seeds": int(row.n),
                    "p, test of zero difference, corrected": _p(row.p_difference),
                    "p, test of the margin, corrected": _p(row.p_margin),
                    "word": row.word,
                }
            )
        parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def chances(book: Book):
    """The likeliest word, and how likely it was, by simulation: a row per question of the complete
    studies.
    """
    parts = {}
    for study, runs in begun(book):
        table = fair.answers(study, runs)
        if (table.word == NOT_YET).any():
            continue
        rows = []
        for key in fair.QUESTIONS:
            found = fair.word_chances(table, key, fair.MARGINS[study.dataset])
            likeliest = {
                f"if it were {true:g}": f"{row.idxmax()} ({100 * row.max():.0f} %)"
                for true, row in found.iterrows()
            }
            rows.append({"question": fair.QUESTIONS[key].title} | likeliest)
        parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def evidence(book: Book) -> RunSet:
    """The runs of all studies of the fair test."""
    return RunSet([run for _, runs in begun(book) for run in runs])


# --- parts ----------------------------------------------------------------------------------------


def _both_chances(study: fair.FairStudy, runs: RunSet, question: fair.Question):
    """The interval over seeds and test images together, of a question."""
    table = fair.roles(runs, study)
    pairs = fair.differences(table, study.same_run(question.first), question.second)
    by_name = {run.name: run for run in runs}
    first, second = ([by_name[name] for name in pairs[side]] for side in ("first", "second"))
    return fair.bootstrap(first, second)


def every_row(book: Book) -> list[tuple[str, np.ndarray, float, str]]:
    """Of every question and study with two seeds what `fair_plots.gaps` draws as a row."""
    tables = answers(book)
    rows = [
        _row(study, runs, key, f"{number}. {question.title} {study.title}", tables)
        for number, (key, question) in enumerate(fair.QUESTIONS.items(), 1)
        for study, runs in begun(book)
    ]
    return [row for row in rows if len(row[1]) > 1]


def panels(book: Book) -> dict[str, list[tuple[str, np.ndarray, float, str]]]:
    """What `fair_plots.headline` draws: of each study with two seeds its five questions."""
    tables = answers(book)
    found = {
        study.title: [_row(study, runs, key, _AXES[key], tables) for key in fair.QUESTIONS]
        for study, runs in begun(book)
    }
    return {title: rows for title, rows in found.items() if all(len(row[1]) > 1 for row in rows)}


def _drawn(rows, what: str):
    drawable = [row for row in rows if len(row[1]) > 1]
    return fair_plots.gaps(drawable, what) if drawable else nothing()


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
