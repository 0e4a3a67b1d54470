"""The `supermask` command: a thin door to the package. No TensorFlow until something trains."""

import argparse
import dataclasses
import difflib
import logging
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from . import packing
from .bundles import exporter, importer
from .experiment import ARMS, NETWORK, PARAMETERS, Experiment, belonging_to
from .experiment.checkpoints import Stopped
from .records import Run, load_runs
from .studies import book, verification
from .studies import commands as measuring_commands
from .studies.cluster import run_study
from .studies.study import Study, belongs_to

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 if a run failed, 2 if something was wrong
    with what was asked, and as shells do 130 after Ctrl-C and 143 after SIGTERM.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].partition("=")[0].replace("_", "-").lower()
        near = difflib.get_close_matches(name, options.known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    before = (
        signal.signal(signal.SIGTERM, _terminate)
        if threading.current_thread() is threading.main_thread()
        else None
    )
    try:
        return options.does(options)
    except (ValueError, OSError) as error:
        print(f"supermask: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (extra := _EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        needed = f"this command needs {error.name}: pip install 'supermask_tf[{extra}]'"
        print(f"supermask: {needed}.", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"supermask: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:  # Ctrl-C, SIGTERM, or a run that one of them stopped
        # A notebook's client leaves a task behind whose kernel is gone; at the exit asyncio would
        # say so, after what is said here.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        print(f"supermask: {error}" if str(error) else f"supermask: {_STOPPED}", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


# The extra that brings a package which only some commands need.
_EXTRAS = dict.fromkeys(("bokeh", "distributed", "papermill", "tqdm"), "study")
_STOPPED = "stopped; the same command goes on with what is not finished."


def _terminate(number, frame):
    raise Stopped(_STOPPED, number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="supermask",
        description="Train supermasks, run studies, look at records, build the book.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_study(commands)
    _add_list(commands)
    _add_verify(commands)
    _add_export(commands)
    _add_import(commands)
    _add_pack(commands)
    _add_unpack(commands)
    measuring_commands.add(commands)
    _add_report(commands)
    for command in commands.choices.values():
        command.set_defaults(known=[*command._option_string_actions])
    return parser


def _add_run(commands) -> None:
    parser = commands.add_parser(
        "run",
        help="run one experiment",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description=(
            "Run one experiment and leave its record. Parameters are those of"
            " book/experiment.ipynb."
        ),
    )
    parser.add_argument(
        "file",
        nargs="?",
        metavar="EXPERIMENT.json",
        help="take the parameters from a record; options given besides replace them",
    )
    parser.add_argument(
        "--directory",
        default="runs/mine",
        help="the study's folder: the run gets a folder of its own in it",
    )
    parser.add_argument(
        "--weights",
        action="store_true",
        help="train a finished run again if its trained weights are gone",
    )
    for field in PARAMETERS.values():
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            metavar=field.name.upper(),
            type=_kind(field),
            help=f"{field.metadata['help']}".replace("%", "%%")
            + ("" if field.default is None else f" (default: {field.default})"),
        )
    parser.set_defaults(does=_run)


def _add_study(commands) -> None:
    parser = commands.add_parser(
        "study",
        help="run a study: every run that is not finished",
        description=(
            "Run every experiment of a study file that has no record yet, through papermill: on"
            " this machine, or on a Dask cluster."
        ),
    )
    parser.add_argument("file", metavar="STUDY.yml")
    parser.add_argument(
        "--directory", help="where the records go (default: runs/<name of the file>)"
    )
    parser.add_argument(
        "--plan", action="store_true", help="list the runs and what is finished; run nothing"
    )
    parser.add_argument(
        "--workers",
        type=_whole,
        metavar="N",
        help=(
            "runs at a time on this machine, which share out its cores (default: one a GPU, "
            "or else one a core with 2 GB of memory each)"
        ),
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help=(
            "run on the workers of this Dask scheduler, such as tcp://host:8786, instead of on this"
            " machine"
        ),
    )
    parser.set_defaults(does=_study)


def _add_list(commands) -> None:
    parser = commands.add_parser(
        "list", help="list records", description="List the records under one or more folders."
    )
    parser.add_argument(
        "folders",
        nargs="*",
        default=["runs"],
        metavar="FOLDER",
        help="study or run folders (default: runs)",
    )
    parser.set_defaults(does=_list)


def _add_verify(commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="train a committed run again and compare",
        description=(
            "Train committed runs again from their experiment.json, and say whether each comes out"
            " identical (as it should on the same processor kind, threads and versions), within the"
            " tolerance, or different."
        ),
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--tolerance",
        type=_number,
        default=0.5,
        metavar="POINTS",
        help="difference in test accuracy that still counts as the same (default: 0.5 points)",
    )
    parser.add_argument("--table", metavar="FILE.csv", help="note the results there")
    parser.set_defaults(does=_verify)


def _add_export(commands) -> None:
    parser = commands.add_parser(
        "export",
        help="experiments as XLA programs, to be trained by JAX on any accelerator",
        description=(
            "Write a folder that trains experiments, and what they start from, with numpy and JAX"
            " alone: python BUNDLE/run.py --help. The data must be on this machine."
        ),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="EXPERIMENT",
        help="an experiment.json, or a study's .yml: all of its runs",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="BUNDLE", help="the folder to make"
    )
    parser.set_defaults(does=_export)


def _add_import(commands) -> None:
    parser = commands.add_parser(
        "import",
        help="results of an exported bundle as records",
        description=(
            "Make records of what a bundle's run.py wrote, each tested again in TensorFlow."
        ),
    )
    parser.add_argument("result", metavar="RESULT", help="the folder that run.py wrote with --out")
    parser.add_argument(
        "--directory", help="the study's folder (default: runs/<the study that was exported>)"
    )
    parser.set_defaults(does=_import)


def _add_pack(commands) -> None:
    parser = commands.add_parser(
        "pack",
        help="a run's network as one small file",
        description=(
            "Write a run's network as one packed file: a seed, the bits of its masks and "
            "what little else it needs. supermask_tf.load reads it."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the file to write (default: <the run's name>.supermask)",
    )
    parser.add_argument(
        "--float16",
        action="store_true",
        help="store batch norm and trained weights in half precision",
    )
    parser.set_defaults(does=_pack)


def _add_unpack(commands) -> None:
    parser = commands.add_parser(
        "unpack",
        help="a packed file as a network of plain Keras layers",
        description=(
            "Write the network of a packed file with plain layers, whose weights are those "
            "that the mask keeps and zeros: for programs that know no masks."
        ),
    )
    parser.add_argument("file", metavar="FILE", help="what `supermask pack` wrote")
    parser.add_argument(
        "--to",
        required=True,
        choices=tuple(_SUFFIXES),
        help="Keras's format, a SavedModel (a folder), or TensorFlow Lite's",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        help="the file or folder to make (default: beside FILE, named after it)",
    )
    parser.set_defaults(does=_unpack)


def _add_report(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="build the book from the records",
        description=(
            "Build the book from the records under runs/ and print the path of its front page."
        ),
    )
    parser.add_argument(
        "--source",
        default=".",
        metavar="FOLDER",
        help="the checkout with _config.yml and _toc.yml (default: here)",
    )
    parser.set_defaults(does=_report)


def _kind(field: dataclasses.Field):
    """How the text of an option becomes the parameter's value."""
    hint = str(field.type)
    if "bool" in hint:
        return _truth_or_choice(field) if "str" in hint else _truth
    return _whole if "int" in hint else _number if "float" in hint else str


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        told = f"{text!r} is no whole number: give one, or leave the option out"
        raise argparse.ArgumentTypeError(told) from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        told = f"{text!r} is no number: give one, or leave the option out"
        raise argparse.ArgumentTypeError(told) from None


def _truth_or_choice(field: dataclasses.Field):
    """Of a parameter that is true, false or one of some words."""
    return lambda text: text if text in field.metadata["choices"] else _truth(text)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false: give one of them")
    return text.lower() == "true"


def _run(options) -> int:
    given = {name: getattr(options, name) for name in PARAMETERS if hasattr(options, name)}
    if not options.file:
        Experiment.of(given).run(options.directory, weights=options.weights)
        return 0
    # What replaces a parameter that parents and children share replaces it in all of them; each is
    # checked before any runs.
    *parents, last = Experiment.lineage(options.file)
    if "init_from" in given or not ARMS[given.get("arm", last.arm)].parents:
        parents = []
    shared = {name: value for name, value in given.items() if name in (*NETWORK, "protocol")}
    line: list[Experiment] = []
    described = None
    for experiment in (*parents, last):
        parameters = _replaced(experiment.parameters(), given if experiment is last else shared)
        line.append(Experiment.of(parameters | ({"init_from": line[-1].name} if line else {})))
        if described:
            line[-1].check_parent(described)
        described = line[-1].parameters() | {"parent": described}
    for experiment in line:
        experiment.run(options.directory, weights=options.weights and experiment is line[-1])
    return 0


def _replaced(parameters: dict, given: dict) -> dict:
    """The parameters with the given ones in their place, and without those that belonged to what
    was replaced.
    """
    changed = [name for name, value in given.items() if parameters[name] != value]
    dropped = {name for name in parameters if belongs_to(name, changed)}
    arms = [ARMS.get(name) for name in (parameters["arm"], given.get("arm", parameters["arm"]))]
    both_search = all(arm and (arm.trains == "mask" or "mask" in arm.parents) for arm in arms)
    if "arm" in changed and not both_search:  # only these arms speak of an estimator
        dropped |= {"estimator", *belonging_to("estimator")}
    elif "estimator" not in changed:
        dropped -= {*belonging_to("estimator")}
    return {name: value for name, value in parameters.items() if name not in dropped} | given


def _study(options) -> int:
    study = Study.load(options.file)
    directory = Path(options.directory or Path("runs") / study.name)
    if options.plan:
        for experiment, block in zip(study.experiments, study.blocks):
            state = "finished" if (directory / experiment.name).exists() else "to run"
            print(f"{state:8}  {block}  {experiment.name}")
        return 0
    outcome = run_study(
        study, directory, sys.stdout, workers=options.workers, scheduler=options.scheduler
    )
    print(f"\n{study.title}\nrecords in {directory}")
    for name, what in outcome.items():
        print(f"  {name}  {what}")
    counts = Counter(what.partition(":")[0] for what in outcome.values())
    kinds = ("finished before", "finished", "failed", "left out")
    print(", ".join(f"{counts[what]} {what}" for what in kinds if counts[what]))
    return 0 if all(what.startswith("finished") for what in outcome.values()) else 1


def _list(options) -> int:
    runs = load_runs(*options.folders)
    if not len(runs):
        print(f"No finished run under {', '.join(options.folders)}.")
        return 0
    for run in runs:
        flag = f"  DAMAGED: {', '.join(run.damaged)}" if run.damaged else ""
        try:
            s, p = run.summary, run.parameters
            xla = f", through XLA on {s['processor']}" if s.get("runtime") == "xla" else ""
            protocol = ", original protocol" if p["protocol"] == "original" else ""
            print(
                f"{run.study}/{run.name}  {p['epochs']} epochs, best {s['best_epoch']}, test"
                f" accuracy {s['test_accuracy']:.4f}, {s['masked']:.1%} masked, {s['seconds']:.0f}"
                f" s{xla}{protocol}{flag}"
            )
        # A damaged record hides none of the others.
        except (OSError, ValueError, KeyError, TypeError):
            print(f"{run.study}/{run.name}{flag or '  DAMAGED'}")
    return 0


def _verify(options) -> int:
    if options.table and not Path(options.table).resolve().parent.is_dir():
        raise FileNotFoundError(
            f"--table {options.table}: there is no folder {Path(options.table).parent}; make it"
            " first."
        )
    rows = []
    for path in options.runs:
        row = verification.verify(path, options.tolerance)
        rows.append(row)
        facts = ("processor", "threads", "versions")
        elsewhere = "; ".join(f"{name}: {row[name]}" for name in facts if row[name] != "same")
        print(
            f"{row['study']}/{row['run']}: {row['verdict']}. Test accuracy {row['again']:.4f},"
            f" recorded {row['recorded']:.4f}; {row['masks_differ']:.2%} of the mask bits differ"
            + (f" ({elsewhere})" if elsewhere else "")
        )
        if row["verdict"] == "other environment":
            print(
                "  Another Keras made it, and gives other bits: verify it in its own environment."
            )
        if options.table:  # now: the next one may fail
            verification.note(options.table, [row])
    return int(any(row["verdict"] == "different" for row in rows))


def _export(options) -> int:
    bundle = exporter.export(options.files, options.output)
    size = sum(path.stat().st_size for path in bundle.folder.glob("**/*") if path.is_file())
    print(
        f"{len(bundle.experiments)} experiments, {len(bundle.programs)} networks, {size / 1e6:.1f}"
        f" MB in {bundle.folder}: train them with `python {bundle.folder}/run.py --data FILE.npz"
        " --out RESULT`."
    )
    return 0


def _import(options) -> int:
    importer.import_results(options.result, options.directory)
    return 0


# What `supermask unpack` calls its output, after the packed file.
_SUFFIXES = {"keras": ".keras", "savedmodel": ".savedmodel", "tflite": ".tflite"}


def _pack(options) -> int:
    run = Run.load(options.run)
    path = run.save(options.output or f"{run.name}.supermask", options.float16)
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def _unpack(options) -> int:
    output = Path(options.output or Path(options.file).with_suffix(_SUFFIXES[options.to]))
    if output.exists():
        raise FileExistsError(
            f"{output} is there already: move it away, or give another name with -o."
        )
    packing.export(options.file, options.to, output)
    print(output)
    return 0


def _report(options) -> int:
    return book.build(options.source)


if __name__ == "__main__":
    sys.exit(main())
