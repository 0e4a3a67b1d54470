"""The papermill template: its parameters are an experiment's, and executed it is a record's
readable companion.
"""

import ast
import base64
import dataclasses
import json
from pathlib import Path

import pytest

from supermask_tf.experiment import Experiment
from supermask_tf.records import Run
from supermask_tf.studies.study import check_injected, template


@pytest.fixture(scope="module")
def notebook():
    return json.loads(template().read_text())


def code(notebook, tag=None):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        "".join(c["source"]) for c in cells if tag is None or tag in c["metadata"].get("tags", [])
    ]


def test_parameters_are_those_of_experiment(notebook):
    """The parameters cell has exactly the fields of Experiment, in order, with the same defaults,
    and `directory`.
    """
    (cell,) = code(notebook, "parameters")
    given = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell).body}
    assert list(given.items()) == [(f.name, f.default) for f in dataclasses.fields(Experiment)] + [
        ("directory", "runs/mine")
    ]


def test_parameters_are_explained(notebook):
    """Behind each parameter stands what `supermask run --help` says of it."""
    (cell,) = code(notebook, "parameters")
    comments = {
        line.split("=")[0].strip(): line.partition("#")[2].strip() for line in cell.splitlines()
    }
    assert {
        f.name: f.metadata["help"] for f in dataclasses.fields(Experiment)
    }.items() <= comments.items()


def test_every_parameter_is_used(notebook):
    """No parameter is forgotten on its way to Experiment."""
    call = next(
        node
        for cell in code(notebook)
        for node in ast.walk(ast.parse(cell))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "sm.Experiment"
    )
    assert {k.arg: ast.unparse(k.value) for k in call.keywords} == {
        f.name: f.name for f in dataclasses.fields(Experiment)
    }


def test_template_is_clean(notebook):
    """It is committed without outputs, counts or traces of a machine, and holds no logic."""
    assert all(
        not cell.get("outputs") and cell.get("execution_count") is None
        for cell in notebook["cells"]
    )
    assert (
        set(notebook["metadata"]) <= {"kernelspec", "language_info"}
        and notebook["metadata"]["kernelspec"]["name"] == "python3"
    )
    for cell in code(notebook):
        assert not [
            n
            for n in ast.walk(ast.parse(cell))
            if isinstance(n, (ast.FunctionDef, ast.For, ast.While, ast.If, ast.Try, ast.ClassDef))
        ]


@pytest.mark.parametrize(
    "name, words",
    [
        ("learningrate", "Unknown parameter 'learningrate': did you mean 'learning_rate'?"),
        ("EPOCHS", "Unknown parameter 'EPOCHS': did you mean 'epochs'?"),
        ("directry", "did you mean 'directory'?"),
        ("zzz", "choose among dataset, model"),
        ("experiment", "Unknown parameter 'experiment'"),
    ],
)
def test_injected_name_is_no_parameter(name, words):
    """What papermill was given and nobody reads is refused, with the nearest parameter."""
    with pytest.raises(ValueError) as error:
        check_injected(["", "epochs = 10\nseed = 0", f"# Parameters\nepochs = 1\n{name} = 0.1\n"])
    assert words in str(error.value)


def test_other_cells_may_set_any_name():
    """Parameters, and what a cell of one's own sets in Jupyter, are nobody's mistake."""
    injected = "# Parameters\ndirectory = 'here'\nlearning_rate = 0.1\n"
    check_injected(["", "x = 3  # mine", injected, "y = [z for z in 'abc']"])


@pytest.mark.slow
def test_misspelt_parameter_through_papermill(tmp_path, monkeypatch):
    """Of a parameter that the template has not papermill only warns; the template refuses it."""
    papermill = pytest.importorskip("papermill")
    monkeypatch.chdir(tmp_path)
    words = "ValueError: Unknown parameter 'learningrate': did you mean 'learning_rate'"
    with pytest.raises(papermill.PapermillExecutionError, match=words):
        papermill.execute_notebook(
            str(template()), "out.ipynb", {"learningrate": 0.1, "epochs": 1}, progress_bar=False
        )
    assert not Path("runs").exists()


@pytest.mark.long
def test_template_through_papermill(tmp_path, monkeypatch):
    """Executed with a few parameters it leaves a record, plain-text progress and two figures, and
    stays small.
    """
    papermill = pytest.importorskip("papermill")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    parameters = {
        "model": "wide_resnet",
        "depth": 10,
        "batch_size": 64,
        "epochs": 2,
        "learning_rate": 0.1,
        "directory": "runs/mine",
    }
    papermill.execute_notebook(
        str(template()), "out.ipynb", parameters, kernel_name="python3", progress_bar=False
    )

    (place,) = (
        path for path in (tmp_path / "runs" / "mine").iterdir() if not path.name.startswith(".")
    )
    run = Run.load(place)
    assert run.damaged == [] and run.parameters["depth"] == 10 and len(run.history) == 2
    outputs = [
        output
        for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    printed = "".join(
        "".join(output["text"])
        for output in outputs
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    for epoch, row in enumerate(run.history.itertuples(), 1):
        assert (
            f"epoch   {epoch}/2   loss {row.loss:.4f}   accuracy {row.accuracy:.4f}   val_accuracy"
            f" {row.val_accuracy:.4f}" in printed
        )
    assert "\r" not in printed and f"test accuracy {run.summary['test_accuracy']:.4f}" in printed
    figures = [
        base64.b64decode("".join(output["data"]["image/png"]))
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(figures) == 2 and all(
        figure.startswith(b"\x89PNG") and len(figure) > 5000 for figure in figures
    )
    noise = "".join(
        "".join(output["text"])
        for output in outputs
        if output["output_type"] == "stream" and output["name"] == "stderr"
    )
    assert noise == "", "warnings would stand in every notebook"
    assert (tmp_path / "out.ipynb").stat().st_size < 300_000


@pytest.mark.slow
def test_an_estimator_in_ten_lines(tmp_path, monkeypatch):
    """The code that the book shows for an estimator of one's own runs as it stands there."""
    from supermask_tf import estimators

    monkeypatch.setattr(estimators, "_KNOWN", dict(estimators._KNOWN))
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "book" / "ways.md").read_text(encoding="utf-8")
    code = page[page.index("## One of your own") :].split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    names = {}
    exec(code, names)
    assert names["run"].parameters["estimator"] == "straight" and names["run"].summary["masked"] > 0
