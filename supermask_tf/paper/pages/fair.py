"""Is a supermask a good start? The six questions of the fair test, and their answers."""

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import fair, fair_plots, mask_plots, plots
from ..fair_words import MEANINGS, ROLES, answer, in_words, meant, still_open
from .book import NOT_YET, Book, by_study, signed, without_index
from .fair_parts import (
    CURVE,
    accuracy,
    begun,
    borrowed,
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
# Whose accuracy is shown before and after training, by the arm whose colour it has.
_CONTRASTED = {
    "rewind": "rewind", "shuffled": "shuffled_mask", "reinit": "reinit", "magnitudes": "mask_long",
}  # fmt: skip
# The study whose tuning the page draws.
_STARTS = "fair_lenet_mnist"
# Fewer masks than these say nothing of better and worse ones.
_FEW = 6


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    tables = answers(book)
    found = {f"answer_{key}": answer_to(book, key) for key in fair.QUESTIONS}
    return found | {
        "answer": answer(tables, notes(book)),
        "contrast": contrast(book),
        "twice": twice(book),
        "seeds": seeds(book),
        "untuned": untuned(book),
        "meaning": meaning(book),
        "budget": budget(book),
        "jumps": jumps(book),
        "logit": best_logit(book),
        "open": still_open(tables),
        "planned": planned(book),
        "exceptions": exceptions(book),
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


def notes(book: Book) -> dict[str, str]:
    """What the answer says of each study beside its title: the share of the weights that its masks
    keep, and whether its controls had no rate of their own.
    """
    found: dict[str, str] = {}
    untuned_in = borrowed(book)
    for study, runs in begun(book):
        off = values(study, runs, "mask", "masked").points.mean()
        parts = [f"{100 - off:.0f} % kept"] if off == off else []
        parts += ["controls not tuned"] if study.title in untuned_in else []
        found |= {study.title: ", ".join(parts)} if parts else {}
    return found


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
        table = fair.roles(runs, study.epochs)
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


def untuned(book: Book) -> str:
    """Where the controls took another arm's rate, and what a rate that is off costs that arm; "" if
    every control was tuned.
    """
    parts = []
    for title, table in borrowed(book).items():
        own = table[(table.role == "rewind") & (table.rates.map(len) > CURVE)]
        (curve,), (rates,) = own.means, own.rates
        best = int(np.argmax(curve))
        costs = [
            f"{curve[best] - curve[i]:.1f} at {rates[i]:g}"
            for i in (best - 1, best + 1)
            if 0 <= i < len(curve)
        ]
        dense = table[table.role == "dense"].rate.tolist()
        too = ", which is the dense network's best one too" * (dense == own.rate.tolist())
        parts.append(
            f"On {title} neither the shuffled mask nor weights drawn anew had a rate tuned for"
            f" them. They take that of the mask's own weights{too}. What a wrong rate costs the"
            f" mask's own weights, in points: {' and '.join(costs)}, against {rates[best]:g} (the"
            f" one taken lies between the rates tried, at {own.rate.iloc[0]:g}). What a rate of"
            f" their own would give is {NOT_YET}.{_on_the_edge(table)}"
        )
    return " ".join(parts)


def _on_the_edge(table: pd.DataFrame) -> str:
    """Whether the masks' own best rate was the last one tried, as a sentence."""
    masks = table[(table.role == "mask") & (table.way == "threshold")]
    if not len(masks) or not masks.loc[masks.accuracy.idxmax()].edge:
        return ""
    return " The masks' own best rate is the last one tried: a better mask may lie beyond it."


def exceptions(book: Book) -> str:
    """Where not every arm's rate was tuned for it, as a clause; "" if every one was."""
    titles = " and ".join(borrowed(book))
    return f" (on {titles} two controls take another arm's)" if titles else ""


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
    missing = [study.title for name, study in fair.STUDIES.items() if not len(book.runs(name))]
    for study, runs in begun(book):
        table = fair.roles(runs, study.epochs)
        parts = [] if table.way.str.startswith("top_k").any() else ["sparser masks"]
        parts += ["question 6"] if not (fair.jumps(study, runs).n > 1).any() else []
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
    parts = [
        ", ".join(f"{key}: {gain}" for key, gain in zip(table.index, gains)).join(
            (f"{title}: ", " points")
        )
        for title, table, gains, _ in jumped(book)
    ]
    return "; ".join(parts) or NOT_YET


def best_logit(book: Book) -> str:
    """What the starting logit is worth, in held-out accuracy, at each one's best rate."""
    parts = []
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        masks = table[(table.role == "mask") & (table.way == "threshold")]
        if len(masks) > 1:
            best = masks.loc[masks.accuracy.idxmax()]
            others = [
                f"{row.accuracy:.1f} % from {row.initial_logit:g}"
                for row in masks.drop(best.name).sort_values("initial_logit").itertuples()
            ]
            parts.append(
                f"{study.title}: the best mask starts at a logit of {best.initial_logit:g} and"
                f" reaches {best.accuracy:.1f} % of the held-out images; the best of the other"
                f" starts reach {' and '.join(others)}"
            )
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
    question, rows = fair.QUESTIONS[key], []
    tables = answers(book)
    for study, runs in begun(book):
        points = gap(study, runs, question.first, question.second)
        rows.append(
            (study.title, points, fair.MARGINS[study.dataset], tables[study.title].word[key])
        )
    return _drawn(rows, _AXES[key])


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


def masks_and_starts(book: Book):
    """Whether a better mask makes a better start, over all masks of a tuning study."""
    name = _STARTS
    study = fair.STUDIES[name]
    table = fair.starts(book.runs(fair.TUNING[name]), study.epochs)
    if len(table) < _FEW:
        return nothing()
    chosen = tuned(book, name, study)
    dense = chosen[chosen.role == "dense"].accuracy.max()
    return fair_plots.masks_and_starts(table, dense)


def tuning_figure(book: Book):
    """Held-out accuracy of the mask by learning rate and starting logit, in a tuning study."""
    name = _STARTS
    study = fair.STUDIES[name]
    table = tuned(book, name, study)
    table = table[(table.role == "mask") & (table.way == "threshold")]
    if not len(table):
        return nothing()
    labels = [f"starting logit {logit:g}" for logit in table.initial_logit]
    return fair_plots.rates(table.assign(label=labels), study.title)


def accuracies(book: Book):
    """Mean test accuracy of each arm: one row per arm, one column per study."""
    columns = {}
    for study, runs in begun(book):
        table = fair.roles(runs, study.epochs)
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
                    "p of no difference, corrected": _p(row.p_difference),
                    "p of reaching the margin, corrected": _p(row.p_margin),
                    "word": row.word,
                }
            )
        parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def chances(book: Book):
    """How likely each word was, by simulation, for the questions of the complete studies."""
    parts = {}
    for study, runs in begun(book):
        table = fair.answers(study, runs)
        if (table.word == NOT_YET).any():
            continue
        rows = []
        for key in fair.QUESTIONS:
            found = fair.word_chances(table, key, fair.MARGINS[study.dataset])
            for true, row in found.iterrows():
                shares = {word: f"{100 * share:.0f} %" for word, share in row.items()}
                rows.append(
                    {"question": fair.QUESTIONS[key].title, "if it were": f"{true:g}"} | shares
                )
        parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def choices(book: Book):
    """The rates that the tuning chose: one row per arm and network."""
    parts = {}
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        if len(table):
            parts[study.title] = pd.DataFrame(
                {
                    "arm": [ROLES[role] for role in table.role],
                    "mask found by": table.way.replace("", "–"),
                    "starting logit": [f"{v:g}" if v == v else "–" for v in table.initial_logit],
                    "rate": [f"{rate:g}" for rate in table.rate],
                    "on the edge": np.where(table.edge, "yes", ""),
                    "held out, %": [f"{value:.2f}" for value in table.accuracy],
                }
            )
    return without_index(by_study(parts)) if parts else nothing()


def evidence(book: Book) -> RunSet:
    """The runs of all studies of the fair test."""
    return RunSet([run for _, runs in begun(book) for run in runs])


# --- parts ----------------------------------------------------------------------------------------


def _both_chances(study: fair.FairStudy, runs: RunSet, question: fair.Question):
    """The interval over seeds and test images together, of a question."""
    table = fair.roles(runs, study.epochs)
    pairs = fair.differences(table, study.same_run(question.first), question.second)
    by_name = {run.name: run for run in runs}
    first, second = ([by_name[name] for name in pairs[side]] for side in ("first", "second"))
    return fair.bootstrap(first, second)


def every_row(book: Book) -> list[tuple[str, np.ndarray, float, str]]:
    """Of every question and study with two seeds what `fair_plots.gaps` draws as a row."""
    tables, rows = answers(book), []
    for number, (key, question) in enumerate(fair.QUESTIONS.items(), 1):
        for study, runs in begun(book):
            points = gap(study, runs, question.first, question.second)
            title = f"{number}. {question.title} {study.title}"
            rows.append((title, points, fair.MARGINS[study.dataset], tables[study.title].word[key]))
    return [row for row in rows if len(row[1]) > 1]


def _drawn(rows, what: str):
    drawable = [row for row in rows if len(row[1]) > 1]
    return fair_plots.gaps(drawable, what) if drawable else nothing()


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
