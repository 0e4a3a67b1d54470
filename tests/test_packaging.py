"""What a user installs: pins, lock, wheel, licence, the README's code."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

import supermask_tf as sm
from supermask_tf.paper.pages import Book, index

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


LOCKS = ("requirements.lock", "requirements-current.lock")


def locked(lock: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        name, version = re.match(r"([\w.-]+)==([\w.]+)", line).groups()
        pins.setdefault(name.lower(), set()).add(version)
    return pins


def paper_pins() -> list[str]:
    """What environment.yml pins."""
    pip = next(
        d["pip"]
        for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if isinstance(d, dict)
    )
    return [d for d in pip if not d.startswith("-e")]


def test_lock_of_the_paper_holds_every_pin_of_its_environment():
    """environment.yml and what `make` installs on Python 3.10 and 3.11 can't drift apart."""
    pins = locked("requirements.lock")
    for requirement in paper_pins():
        name, version = requirement.split("==")
        assert pins[name] == {version}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_the_project_asks_for(lock):
    """Both environments satisfy the ranges, extras included, and a lock serves anyone's index."""
    pins = locked(lock)
    extras = PROJECT["optional-dependencies"]
    asked = PROJECT["dependencies"] + [
        each for extra in ("book", "study", "test", "dev") for each in extras[extra]
    ]
    for requirement in map(Requirement, asked):
        versions = pins[requirement.name.lower()]
        assert all(requirement.specifier.contains(v, prereleases=True) for v in versions), (
            requirement,
            versions,
        )
    assert "://" not in (ROOT / lock).read_text()
    assert pins["keras"] == ({"2.15.0"} if lock == "requirements.lock" else {"3.15.1"})


def test_the_library_asks_for_ranges():
    """It joins an environment that is there: no version is pinned, no extra's tool is asked for."""
    names = {Requirement(each).name for each in PROJECT["dependencies"]}
    assert not any("==" in each for each in PROJECT["dependencies"])
    assert names.isdisjoint({"jupyter-book", "papermill", "distributed", "matplotlib", "ipykernel"})


def test_version_is_one():
    """The package, its metadata and its citation name the same version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert sm.__version__ == PROJECT["version"] == citation["version"]
    assert (
        "MIT" in (ROOT / "LICENSE").read_text()
        and PROJECT["license"] == citation["license"] == "MIT"
    )


@pytest.mark.long
def test_wheel_builds_with_the_template_and_the_type_marker(tmp_path):
    """An installed package can run studies without a checkout, and type checkers see its types."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "supermask_tf").rglob("*.py")}
    assert modules | {"supermask_tf/experiment.ipynb", "supermask_tf/py.typed"} <= set(names)


def readme_code() -> str:
    return re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)


@pytest.mark.long
def test_readme_code_runs_as_it_stands(tmp_path):
    """The README's example, under 20 lines, does what it says."""
    code = readme_code()
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert "dense1/kernel" in done.stdout
    assert 0.3 < float(re.search(r"kept: ([\d.]+)", done.stdout).group(1)) < 0.9, (
        "the mask has learned"
    )
    (run,) = sm.load_runs(tmp_path / "runs" / "mine")
    assert run.summary["masked"] > 0.1 and run.summary["test_accuracy"] > 0.7
    again = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import supermask_tf, tensorflow as tf\nmodel ="
                " tf.keras.models.load_model('mine.keras')\nprint(type(model).__name__,"
                " model.phase)"
            ),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert again.stdout.split() == ["SupermaskModel", "weights"], again.stderr


def test_readme_names_targets_that_exist():
    """Every `make` target and file that the README names is there."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", readme)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"`((?:book|runs|tests|benchmarks|supermask_tf)/[\w./]*)`", readme):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_headline_figure_is_of_the_committed_records():
    """The README's figure was drawn from the records that are there (`make headline` draws it
    again).
    """
    _, numbers = index.headline(Book(ROOT))
    assert Image.open(ROOT / "book" / "headline.png").text["Description"] == numbers


def test_wrong_python_gets_one_sentence(tmp_path):
    """`make report` with a Python that does not fit says so in one line and installs nothing."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for lock in LOCKS:
        (tmp_path / lock).touch()
    (tmp_path / "pyproject.toml").touch()
    fake = tmp_path / "python3.9"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["make", "report", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode and len(lines) == 1 and "needs Python 3.10 to 3.13" in lines[0]
    assert not (tmp_path / ".venv").exists()


def test_functions_and_modules_are_short():
    """No module of the package has over 500 lines, and no function over 60 without a reason above
    it.
    """
    for path in sorted((ROOT / "supermask_tf").rglob("*.py")):
        lines = path.read_text().splitlines()
        assert len(lines) <= 500, path
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                above = lines[node.lineno - len(node.decorator_list) - 2]
                assert above.lstrip().startswith("# Longer than a screen"), (path, node.name)


def test_nothing_committed_names_this_machine_or_is_too_large():
    """No path of a machine in the executed notebooks; each under 300 KB."""
    for notebook in ROOT.glob("runs/*/*/notebook.ipynb"):
        assert notebook.stat().st_size < 300_000, notebook
        assert (
            str(ROOT) not in notebook.read_text()
            and str(Path.home()) + "/" not in notebook.read_text()
        )


def test_the_top_level_holds_what_it_should():
    """Nothing that a script left there was committed with the rest."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("needs the repository")
    found = {name.partition("/")[0] for name in done.stdout.splitlines()}
    ours = {name for name in found if not name.startswith(".")}
    assert ours == {
        "CITATION.cff", "LICENSE", "Makefile", "README.md", "_config.yml", "_toc.yml", "benchmarks",
        "book", "environment.yml", "pyproject.toml", "requirements-current.lock",
        "requirements-jax.lock", "requirements.lock", "runs", "supermask_tf", "tests",
    }  # fmt: skip
