"""Mask your own model: two scripts beside the page, run when the book is built."""

import ast
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from .book import Book, percent


def run(script: Path) -> tuple[str, dict[str, int]]:
    """What a script prints, and the bytes of each file that it leaves, by name.

    It runs in a process and a folder of its own, with the package that made the page.

    Raises:
        RuntimeError: if it fails, with the end of what it said.
    """
    package = str(Path(__file__).resolve().parents[3])
    told = {"PYTHONPATH": package, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, script.resolve()],
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | told,
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed: {done.stderr[-2000:]}")
        # With Keras 3 the converter prints, last of all, what it had put into a folder of its own.
        said = done.stdout.partition("Saved artifact at ")[0]
        return said, {name: (Path(folder) / name).stat().st_size for name in os.listdir(folder)}


@cache
def _example(checkout: Path) -> tuple[str, dict[str, int]]:
    return run(checkout / "book" / "mask" / "example.py")


@cache
def others(checkout: Path) -> dict[str, dict[str, Any]]:
    """What the second script measured, by network."""
    said, _ = run(checkout / "book" / "mask" / "others.py")
    return ast.literal_eval(said.strip().splitlines()[-1])


def example(book: Book) -> None:
    """Print what the example prints."""
    said, _ = _example(book.checkout)
    print(said, end="")


def _beside(gap: float) -> str:
    """How outputs compare with others, from the largest difference over the largest of them."""
    return "equal" if gap == 0 else f"differ by at most {gap:.0e} of the largest from"


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    said, sizes = _example(book.checkout)
    lines = dict(line.split(": ", 1) for line in said.strip().splitlines())
    found = {
        "before": percent(float(lines["before"])),
        "after": percent(float(lines["after"])),
        "tflite": f"{sizes['digits.tflite'] / 1000:.0f} kB",
        "packed": f"{sizes['digits.supermask'] / 1000:.0f} kB",
    }
    measured = others(book.checkout)
    trained, vit, mobilenet = (measured[name] for name in ("trained", "transformer", "mobilenet"))
    found |= {
        "trained": percent(trained["before"]),
        "trained_masked": percent(trained["after"]),
        "trained_kept": percent(trained["kept"], 0),
        "vit_before": percent(vit["before"]),
        "vit_after": percent(vit["after"]),
        "mobilenet_open": _beside(mobilenet["open"]),
        "mobilenet_gap": _beside(mobilenet["gap"]),
        "mobilenet_parameters": f"{mobilenet['parameters']:,}",
        "mobilenet_compact": f"{mobilenet['compact']:,}",
    }
    for name, facts in measured.items():
        found |= {
            f"{name}_layers": str(facts["layers"]),
            f"{name}_weights": f"{facts['weights']:,}",
            f"{name}_kept": percent(facts["kept"]),
            f"{name}_kinds": ", ".join(facts["kinds"]),
            f"{name}_left": ", ".join(facts["left"]) or "nothing",
        }
    return found
