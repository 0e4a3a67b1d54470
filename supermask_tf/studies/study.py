"""A study: a YAML grid of experiments, each run through papermill in a kernel of its own. No
TensorFlow.

A study file names blocks of runs. A value that is a list is an axis of the block's grid. A block
with `from` starts each of its runs from one run of another block, whose dataset, network, seed and
training settings it takes over::

    title: What this study is for
    runs:
      mask:     {arm: mask, dataset: [mnist, cifar10], seed: [0, 1, 2], epochs: 10}
      finetune: {arm: finetune, from: mask, epochs: 10}
"""

import ast
import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from .. import records
from ..experiment import NETWORK, PARAMETERS, Experiment
from ..records import Run

__all__ = ["Study", "template"]

# What a child takes over from its parent, unless it says otherwise.
_INHERITED = tuple(
    name
    for name, field in PARAMETERS.items()
    if field.metadata.get("network") or field.metadata.get("inherited")
)

# More is a mistake, or meant to fill the memory.
_LONGEST, _DEEPEST, _MOST_VALUES, _MOST_RUNS = 200_000, 20, 100_000, 10_000


@dataclass(frozen=True)
class Study:
    """A study's experiments, parents before their children.

    Attributes:
        name: the file's name without its suffix: records go to `runs/<name>`.
        title: what it is for.
        experiments: in the order in which they can run.
        blocks: for each of them, the name of its block in the file.
    """

    name: str
    title: str
    experiments: list[Experiment] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read and check a study file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no YAML, is out of all proportion, has an unknown key or one twice,
                blocks that start from each other in a circle, a block whose parent is missing, a
                bad parameter, or two equal runs; the line is named.
        """
        file = _File.read(Path(path))
        made = _experiments(file)
        pairs = [
            (experiment, name) for name, experiments in made.items() for experiment in experiments
        ]
        return cls(
            file.path.stem,
            str(file.content.get("title", file.path.stem)),
            [experiment for experiment, _ in pairs],
            [name for _, name in pairs],
        )


# --- a study file, read and checked ---------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A study file as it was read.

    Attributes:
        content: what YAML made of it; once `read` has checked it, a mapping with `runs`.
        lines: the line of every key of nested mappings.
    """

    path: Path
    content: Any
    lines: dict[tuple[str, ...], int]

    @classmethod
    def read(cls, path: Path) -> "_File":
        """Read the file, and check all of it but the parameters."""
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no study file {path}: give the path of a .yml, such as"
                " runs/studies/quick.yml."
            )
        try:
            text = path.read_text(encoding="utf-8")
            node = _composed(text)
            file = cls(path, yaml.safe_load(text), _lines(node))
        except (yaml.YAMLError, ValueError) as error:  # of Unicode and of very long numbers too
            raise ValueError(f"{path} is not a study: {' '.join(str(error).split())}.") from error
        if repeated := _repeated(node):
            raise ValueError(
                f"{path}, line {repeated.start_mark.line + 1}: the key {repeated.value!r} stands"
                " here a second time: leave one out."
            )
        file._check_keys()
        for name in file.blocks:
            file._check_block(name)
        return file

    @property
    def blocks(self) -> dict[str, dict[str, Any]]:
        """The blocks by name, as they stand in the file."""
        return self.content["runs"]

    def refuse(self, key: tuple[Any, ...], problem: str) -> NoReturn:
        """Raise a ValueError that names the line of a key."""
        key = tuple(map(str, key))
        while key and key not in self.lines:  # it came through a merge: the line of the block
            key = key[:-1]
        raise ValueError(f"{self.path}, line {self.lines.get(key, 1)}: {problem}")

    def _check_keys(self) -> None:
        content = self.content
        if (
            not isinstance(content, dict)
            or not isinstance(content.get("runs"), dict)
            or not content["runs"]
        ):
            self.refuse(
                (),
                "a study is a mapping with `title` and `runs`, a mapping of named blocks: "
                "give, for example, runs: {mask: {arm: mask, epochs: 3}}.",
            )
        for key in content:
            if key not in ("title", "runs"):
                self.refuse((key,), f"unknown key {key!r}; a study has `title` and `runs`.")

    def _check_block(self, name: str) -> None:
        block: Any = self.blocks[name]
        if not isinstance(block, dict):
            self.refuse(
                ("runs", name),
                f"block {name!r} is {repr(block)[:80]}; give a mapping of parameters.",
            )
        if "from" in block and "init_from" in block:
            self.refuse(
                ("runs", name, "init_from"),
                f"block {name!r} has `from` and `init_from`: leave one out.",
            )
        # Searched as a list, so that an unhashable value is refused too.
        if "from" in block and block["from"] not in [*self.blocks]:
            self.refuse(
                ("runs", name, "from"),
                f"block {name!r} starts from {repr(block['from'])[:80]}, which is not in this"
                f" file; it has {', '.join(map(str, self.blocks))}.",
            )


# --- its experiments ------------------------------------------------------------------------------


def _experiments(file: _File) -> dict[str, list[Experiment]]:
    """The experiments of each block, parents first."""
    made: dict[str, list[Experiment]] = {}
    described: dict[str, dict[str, Any]] = {}  # by run, as in experiment.json, with the parents
    block_of: dict[str, str] = {}  # by run
    for name in _ordered(file):
        made[name] = []
        parents = made[file.blocks[name]["from"]] if "from" in file.blocks[name] else [None]
        for parent in parents:
            parent_described = described[parent.name] if parent else None
            for experiment in _grid(file, name, parent, parent_described, len(block_of)):
                if experiment.name in block_of:
                    file.refuse(
                        ("runs", name),
                        f"block {name!r} repeats the run {experiment.name} of block"
                        f" {block_of[experiment.name]!r}: leave one out.",
                    )
                block_of[experiment.name] = name
                described[experiment.name] = experiment.parameters() | {"parent": parent_described}
                made[name].append(experiment)
    return made


def _grid(
    file: _File,
    name: str,
    parent: Experiment | None,
    parent_described: dict[str, Any] | None,
    runs_before: int,
) -> Iterator[Experiment]:
    """The experiments of one block that start from one parent, or from none.

    Args:
        name: the block's.
        parent_described: the parent's parameters as in `experiment.json`, with its own parents.
        runs_before: how many runs the study has without these.
    """
    block = {key: value for key, value in file.blocks[name].items() if key != "from"}
    _check_values(file, name, block)
    axes = [value if isinstance(value, list) else [value] for value in block.values()]
    if runs_before + math.prod(map(len, axes)) > _MOST_RUNS:
        file.refuse(
            ("runs", name),
            f"with block {name!r} the study has more than {_MOST_RUNS} runs: split it.",
        )
    taken = _taken_over(parent, block) if parent else {}
    for values in itertools.product(*axes):
        try:
            experiment = Experiment.of(taken | dict(zip(block, values)))
            if parent_described:
                experiment.check_parent(parent_described)
        except (ValueError, FileNotFoundError) as error:
            told = str(error)
            file.refuse(("runs", name, *_first_named(block, told)), told)
        yield experiment


def _check_values(file: _File, name: str, block: dict[str, Any]) -> None:
    """See that a block gives what it may, and something for each parameter it names."""
    start = file.blocks[name].get("from")
    for key, value in block.items():
        if "from" in file.blocks[name] and key in NETWORK:
            file.refuse(
                ("runs", name, key),
                f"block {name!r} takes its {key} from the runs of {start!r}: leave it out.",
            )
        if value == []:
            file.refuse(("runs", name, key), f"{key} is an empty list: give at least one value.")


def _taken_over(parent: Experiment, block: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a block's run takes over from its parent."""
    taken = {key: getattr(parent, key) for key in _INHERITED} | {"init_from": parent.name}
    # With a parameter that the block gives go those that belonged to the parent's value of it.
    given = [key for key in block if key != "arm"]  # a child has its own in any case
    return {key: value for key, value in taken.items() if not belongs_to(key, given)}


def _first_named(block: dict[str, Any], told: str) -> list[str]:
    """The first of a block's keys that an error names, in a list; an empty one if it names none.

    The sentence begins with what is wrong; further on it may list what else there is.
    """
    named = [key for key in block if str(key) in told]
    return sorted(named, key=lambda key: told.index(str(key)))[:1]


def _ordered(file: _File) -> list[str]:
    """The names of the blocks, parents first."""
    order: list[str] = []
    for first in file.blocks:
        chain: list[str] = []
        name: str | None = first
        while name is not None and name not in order:
            if name in chain:
                file.refuse(
                    ("runs", name, "from"),
                    f"block {name!r} starts from itself through its parents: break the circle.",
                )
            chain.append(name)
            name = file.blocks[name].get("from")
        order += reversed(chain)
    return order


def belongs_to(name: str, given: Iterable[str]) -> bool:
    """Whether a parameter belongs to one of the parameters that were given, and was not given
    itself.
    """
    if name not in PARAMETERS or name in given:
        return False
    metadata = PARAMETERS[name].metadata
    return not {*metadata.get("of", ()), *metadata.get("goes_with", ())}.isdisjoint(given)


def _composed(text: str) -> yaml.Node | None:
    """The document's nodes, if it is in proportion: what builds values from them would never end
    with some that are not.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text)} characters, more than {_LONGEST}: split it")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
    node = yaml.compose(text, yaml.SafeLoader)
    if (values := _values(node, {})) > _MOST_VALUES:
        raise ValueError(
            f"it has {values:.3g} values where its aliases are written out, more than"
            f" {_MOST_VALUES}"
        )
    return node


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a document has where every alias is written out: a few lines can stand for
    billions, or for themselves.
    """
    if id(node) not in known:
        known[id(node)] = math.inf  # for a node that holds itself
        children = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else (
                [n for pair in node.value for n in pair]
                if isinstance(node, yaml.MappingNode)
                else []
            )
        )
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def _lines(node: yaml.Node | None, key: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line (from 1) of every key of nested mappings."""
    lines = {}
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        path = (*key, str(name.value))
        lines[path] = name.start_mark.line + 1
        lines |= _lines(value, path)
    return lines


def _repeated(node: yaml.Node | None) -> yaml.Node | None:
    """The first key that a mapping has twice: YAML would keep the last value and say nothing."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.tag != "tag:yaml.org,2002:merge" and str(name.value) in seen:
                return name
            seen.add(str(name.value))
            if found := _repeated(value):
                return found
    return None


def template() -> Path:
    """The notebook that papermill runs: the checkout's, or the copy that the installed package
    carries.
    """
    here = Path(__file__).resolve().parents[1]
    for place in (here.parent / "book" / "experiment.ipynb", here / "experiment.ipynb"):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"The template notebook experiment.ipynb is neither in {here.parent / 'book'} nor in"
        f" {here}: install the package again."
    )


def check_injected(cells: list[str]) -> None:
    """Refuse what papermill was given and is no parameter of the template.

    Another experiment would be trained than was asked for.

    Args:
        cells: IPython's `In`: the cells run so far, that of papermill among them.

    Raises:
        ValueError: if a name is unknown.
    """
    known = [*(field.name for field in dataclasses.fields(Experiment)), "directory"]
    # papermill's cell begins with this line.
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    for node in (node for cell in injected for node in ast.walk(ast.parse(cell))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in known:
            near = difflib.get_close_matches(node.id.lower(), known, n=1)
            raise ValueError(
                f"Unknown parameter {node.id!r}: "
                + (f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(known)}.")
            )


def run_notebook(
    experiment: Experiment, directory: Path, output=None, cwd: Path | None = None
) -> Run:
    """Run one experiment as an executed copy of the template, which joins its record.

    Args:
        output: a text stream for what the notebook prints, as it prints it.
        cwd: where the notebook runs (default: here); `directory` stands in it as a path from there.

    Raises:
        papermill.PapermillExecutionError: if a cell failed; the notebook so far is kept in
            `directory/.failed/`.
    """
    import papermill

    from .kernels import KernelManager

    # A backend chosen for scripts would leave the notebook without figures.
    os.environ.pop("MPLBACKEND", None)
    cwd = cwd or Path.cwd()
    records.check_writable(directory)
    failed = directory / ".failed" / f"{experiment.name}.ipynb"
    failed.parent.mkdir(exist_ok=True)
    parameters = {key: value for key, value in experiment.parameters().items() if value is not None}
    notebook = papermill.execute_notebook(
        str(template()),
        str(failed),
        parameters | {"directory": os.path.relpath(directory, cwd)},
        progress_bar=False,
        log_output=False,
        stdout_file=output,
        kernel_name="python3",
        kernel_manager_class=KernelManager,
        cwd=str(cwd),
    )
    run = Run.load(directory / experiment.name)
    records.attach_notebook(run, notebook)
    failed.unlink()
    return run
