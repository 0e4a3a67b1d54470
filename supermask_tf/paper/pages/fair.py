"""Is a supermask a good start? The six questions of the fair test, and their answers."""

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import fair, fair_plots
from ..fair_words import ROLES, SENTENCES
from . import inline
from .book import NOT_YET, Book, by_study, signed, without_index

_AXES = {
    "same_time": "mask, then weights − dense for twice as long",
    "mask_for_free": "weights trained under the mask − dense",
    "this_mask": "under the mask − under the mask shuffled",
    "these_weights": "under the mask − under the mask over new weights",
    "replaces_training": "only the mask learned − dense",
}
# The study whose tuning the page draws.
_STARTS = "fair_lenet_mnist"


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    tables = answers(book)
    found = {f"answer_{key}": answer_to(book, key) for key in fair.QUESTIONS}
    return found | {
        "answer": answer(tables),
        "seeds": seeds(book),
        "budget": budget(book),
        "jumps": jumps(book),
        "logit": best_logit(book),
        "open": still_open(tables),
    }


def answers(book: Book) -> dict[str, pd.DataFrame]:
    """The five primary questions of each study that has runs, by the study's title."""
    return {study.title: fair.answers(study, runs) for study, runs in _begun(book) if len(runs)}


def answer_to(book: Book, key: str) -> str:
    """The answer to a question, each number with its runs."""
    question = fair.QUESTIONS[key]
    shown = {
        study.title: _written(study, runs, question.first, question.second)
        for study, runs in _begun(book)
    }
    return in_words(answers(book), key, shown)


def in_words(tables: dict[str, pd.DataFrame], key: str, shown: dict[str, str] | None = None) -> str:
    """The answer to a question: one sentence per word that was found.

    Args:
        tables: `answers`.
        key: of the question.
        shown: how each study's number is written, by its title; else rounded.
    """
    words: dict[str, list[str]] = {}
    for title, table in tables.items():
        row = table.loc[key]
        number = (shown or {}).get(title, signed(row["mean"]))
        points = f"{title}: {number}" if row.n else title
        words.setdefault(row.word, []).append(points)
    sentences = [
        SENTENCES[key][word].format(where="; ".join(where))
        for word, where in words.items()
        if word != NOT_YET
    ]
    if missing := words.get(NOT_YET):
        sentences.append(f"Not measured yet with all planned seeds: {'; '.join(missing)}.")
    return " ".join(sentences) or f"This is {NOT_YET}."


def answer(tables: dict[str, pd.DataFrame]) -> str:
    """The two sentences that the page, and the front page, open with."""
    found = {key: {t.word[key] for t in tables.values()} - {NOT_YET} for key in fair.QUESTIONS}
    if not all(found.values()):
        return f"The fair test is {NOT_YET}: its runs are still being made."
    start = found["mask_for_free"]
    if "better" not in start:
        first = (
            "No: even if the mask is free, training the weights under it ends no higher than"
            " training the dense network."
            if "open" not in start
            else "Nothing here says that a supermask is a better start: where it is not worse or"
            " the same, these seeds can't tell."
        )
    else:
        first = (
            "Yes: training the weights under the mask ends higher than training the dense network."
            if start == {"better"}
            else "It depends: training the weights under the mask ends higher than training the"
            " dense network on some of these networks and datasets, and not on others."
        )
    suits, places = found["these_weights"], found["this_mask"]
    if suits == places == {"the same"}:
        second = (
            "Neither its places nor the weights that it was learned for make a difference that"
            " matters."
        )
    elif suits == places == {"better"}:
        second = "It does suit the weights that it was learned for, and its places matter."
    else:
        second = (
            f"Its places matter {_often(places, tables)}, and the weights that it was learned for"
            f" matter {_often(suits, tables)}."
        )
    answered = [title for title, table in tables.items() if NOT_YET not in set(table.word)]
    if answered and len(answered) < len(fair.STUDIES):
        second += f" So far this is {'; '.join(answered)}: the other studies are still to come."
    return f"{first} {second}"


def _often(words: set[str], tables: dict[str, pd.DataFrame]) -> str:
    if words == {"the same"}:
        return "nowhere"
    if words == {"open"}:
        return "to an extent that these seeds can't tell"
    return "everywhere" if not words & {"the same", "open"} else "in some of these cases"


def seeds(book: Book) -> str:
    """How many seeds of how many planned are in, per study."""
    parts = []
    for study, runs in _begun(book):
        table = fair.roles(runs, study.epochs)
        count = len(fair.differences(table, "rewind", "dense")) if len(table) else 0
        parts.append(f"{study.title}: {count} of {study.seeds}")
    return "; ".join(parts) or "none"


def budget(book: Book) -> str:
    """Whether T was enough for the dense network: where twice as long ends surely higher."""
    more: list[str] = []
    enough: list[str] = []
    for study, runs in _begun(book):
        points = _gap(study, runs, "dense_2t", "dense")
        if len(points) > 1:
            margin = fair.MARGINS[study.dataset]
            gain = _written(study, runs, "dense_2t", "dense")
            text = f"{study.title} ({gain} points)"
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


def jumps(book: Book) -> str:
    """What T more epochs at 1e-5 add, per study."""
    parts = []
    for study, runs in _begun(book):
        table = fair.jumps(study, runs)
        if (table.n > 1).all():
            gains = [f"{key}: {_written(study, runs, *fair.JUMPS[key])}" for key in table.index]
            parts.append(f"{study.title}: {', '.join(gains)} points")
    return "; ".join(parts) or NOT_YET


def best_logit(book: Book) -> str:
    """What the starting logit is worth, in held-out accuracy, at each one's best rate."""
    parts = []
    for name, study in fair.STUDIES.items():
        table = _tuned(book, name, study)
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


def still_open(tables: dict[str, pd.DataFrame]) -> str:
    """Which questions have no word yet, and which are open."""
    if not tables:
        return "All six questions: no study of the fair test has a run yet"
    parts = []
    for word, named in ((NOT_YET, "not measured with all planned seeds"), ("open", "open")):
        found = [
            f"{fair.QUESTIONS[key].title} on {title}"
            for key in fair.QUESTIONS
            for title, table in tables.items()
            if table.word[key] == word
        ]
        if found:
            parts.append(f"{named}: {'; '.join(found)}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) or "Nothing is open by the rule"


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


def free_at_densities(book: Book):
    """The second question for the masks that top_k finds."""
    return _other_ways(book, "mask_for_free")


def weights_at_densities(book: Book):
    """The fourth question for the masks that top_k finds."""
    return _other_ways(book, "these_weights")


def _question(book: Book, key: str):
    question, rows = fair.QUESTIONS[key], []
    tables = answers(book)
    for study, runs in _begun(book):
        points = _gap(study, runs, question.first, question.second)
        rows.append(
            (study.title, points, fair.MARGINS[study.dataset], tables[study.title].word[key])
        )
    return _drawn(rows, _AXES[key])


def _other_ways(book: Book, key: str):
    question, rows = fair.QUESTIONS[key], []
    for study, runs in _begun(book):
        ways = fair.roles(runs, study.epochs).way.unique()
        for way in sorted((w for w in ways if w.startswith("top_k")), reverse=True):
            points = _gap(study, runs, question.first, question.second, way)
            kept = f"{100 * float(way.split()[1]):g} % kept"
            rows.append((f"{study.title}, {kept}", points, fair.MARGINS[study.dataset], ""))
    return _drawn(rows, _AXES[key])


def beside(book: Book):
    """The controls beside the fourth question."""
    rows = []
    for study, runs in _begun(book):
        for question in fair.BESIDE.values():
            points = _gap(study, runs, question.first, question.second)
            title = f"{study.title}: {question.title[0].lower()}{question.title[1:]}"
            rows.append((title, points, fair.MARGINS[study.dataset], ""))
    return _drawn(rows, "first − second")


def jump_figure(book: Book):
    """The sixth question: what T more epochs at 1e-5 add."""
    rows = []
    for study, runs in _begun(book):
        for name, (after, before) in fair.JUMPS.items():
            points = _gap(study, runs, after, before)
            rows.append((f"{study.title}: {name}", points, fair.MARGINS[study.dataset], ""))
    return _drawn(rows, "after − before")


def masks_and_starts(book: Book):
    """Whether a better mask makes a better start, over all masks of a tuning study."""
    name = _STARTS
    study = fair.STUDIES[name]
    table = fair.starts(book.runs(fair.TUNING[name]), study.epochs)
    if not len(table):
        return nothing()
    chosen = _tuned(book, name, study)
    dense = chosen[chosen.role == "dense"].accuracy.max()
    return fair_plots.masks_and_starts(table, dense)


def tuning_figure(book: Book):
    """Held-out accuracy of the mask by learning rate and starting logit, in a tuning study."""
    name = _STARTS
    study = fair.STUDIES[name]
    table = _tuned(book, name, study)
    table = table[(table.role == "mask") & (table.way == "threshold")]
    if not len(table):
        return nothing()
    labels = [f"starting logit {logit:g}" for logit in table.initial_logit]
    return fair_plots.rates(table.assign(label=labels), study.title)


def accuracies(book: Book):
    """Mean test accuracy of each arm: one row per arm, one column per study."""
    columns = {}
    for study, runs in _begun(book):
        table = fair.roles(runs, study.epochs)
        own = table[table.way.isin(["threshold", ""])].groupby("role").accuracy
        columns[study.title] = {
            ROLES[role]: f"{values.mean():.2f} %" for role, values in own if len(values) > 1
        }
    frame = pd.DataFrame(columns, index=pd.Index(ROLES.values())).dropna(how="all").fillna("")
    return frame.style


def numbers(book: Book):
    """All five comparisons with their intervals, p values and words."""
    parts = {}
    for study, runs in _begun(book):
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
                    if low == low
                    else "–",
                    "seeds": int(row.n),
                    "p of no difference": _p(row.p_difference),
                    "p of reaching the margin": _p(row.p_margin),
                    "word": row.word,
                }
            )
        parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def chances(book: Book):
    """How likely each word was, by simulation, for the questions of the complete studies."""
    parts = {}
    for study, runs in _begun(book):
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
        table = _tuned(book, name, study)
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
    return RunSet([run for _, runs in _begun(book) for run in runs])


# --- parts ----------------------------------------------------------------------------------------


def _begun(book: Book) -> list[tuple[fair.FairStudy, RunSet]]:
    """The studies that have runs, in the order of the page of claims."""
    found = [(study, book.runs(name)) for name, study in fair.STUDIES.items()]
    return [(study, runs) for study, runs in found if len(runs)]


def _tuned(book: Book, name: str, study: fair.FairStudy) -> pd.DataFrame:
    """The curves of a study's tuning of which both seeds are in."""
    tuning = fair.TUNING.get(name)
    found = fair.choices(book.runs(tuning) if tuning else RunSet([]), study.epochs)
    return found[found.seeds >= 2]


def _gap(
    study: fair.FairStudy, runs: RunSet, first: str, second: str, way: str = "threshold"
) -> np.ndarray:
    """The differences between two roles of a study, in points, one per seed."""
    first = study.same_run(first)
    return fair.differences(fair.roles(runs, study.epochs), first, second, way).points.to_numpy()


def _written(study: fair.FairStudy, runs: RunSet, first: str, second: str) -> str:
    """The difference between two roles of a study as a number with its runs."""
    folder = next(name for name, known in fair.STUDIES.items() if known == study)
    side = study.same_run(first)
    table = fair.differences(fair.roles(runs, study.epochs), side, second)
    both = zip(table["first"], table["second"])
    names = [((f"{folder}/{one}",), (f"{folder}/{other}",)) for one, other in both]
    pairs = pd.DataFrame({"points": table.points, "runs": names}, index=table.index)
    title = f"{study.title}: {ROLES[side]} − {ROLES[second]}"
    return inline.difference(f"{folder}/{side}-{second}", title, pairs)


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
        for study, runs in _begun(book):
            points = _gap(study, runs, question.first, question.second)
            title = f"{number}. {question.title} {study.title}"
            rows.append((title, points, fair.MARGINS[study.dataset], tables[study.title].word[key]))
    return [row for row in rows if len(row[1]) > 1]


def _drawn(rows, what: str):
    drawable = [row for row in rows if len(row[1]) > 1]
    return fair_plots.gaps(drawable, what) if drawable else nothing()


def nothing():
    """What stands in the place of a figure or a table that has no runs yet."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(f"<p><em>{NOT_YET}</em></p>")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
