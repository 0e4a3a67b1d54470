"""Notebooks that start side by side reach their kernels: no port that another may take first."""

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbclient
import nbformat
import papermill
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory

import supermask_tf as sm
from supermask_tf import study
from supermask_tf.studies.kernels import KernelManager

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="no such sockets here")
SAY = (
    "from ipykernel.connect import get_connection_info\nraise RuntimeError('reached by ' +"
    " get_connection_info(unpack=True)['transport'])"
)


def notebook(*cells: str):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    made.metadata["kernelspec"] = {
        "name": "python3",
        "language": "python",
        "display_name": "Python 3",
    }
    return made


def square(number: int, folder: Path) -> str:
    done = nbclient.execute(
        notebook(f"{number} ** 2"),
        cwd=str(folder),
        kernel_manager_class=KernelManager,
        timeout=120,
        startup_timeout=120,
    )
    return done.cells[0].outputs[0]["data"]["text/plain"]


@pytest.mark.slow
def test_side_by_side(monkeypatch, tmp_path):
    """Each of several processes, each in a folder of its own, gets its own kernel, and nothing is
    left of them.
    """
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    with (
        tempfile.TemporaryDirectory() as sockets,
        ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool,
    ):
        monkeypatch.setenv("TMPDIR", sockets)
        assert [*pool.map(square, range(3), folders)] == ["0", "1", "4"]
        assert not [*Path(sockets).glob("kernel-*")]
    assert not any(any(folder.iterdir()) for folder in folders)


def test_no_two_share_an_address():
    assert len({KernelManager().ip for _ in range(20)}) == 20


@pytest.mark.slow
def test_long_folder_for_temporary_files(monkeypatch, tmp_path):
    """The path of a socket may have about a hundred characters: beyond, it is Jupyter's own way
    again, and works.
    """
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    manager = KernelManager()
    assert (manager.transport, manager.ip) == ("tcp", "127.0.0.1")
    assert square(3, tmp_path) == "9"


@pytest.mark.slow
def test_a_run_takes_no_port(monkeypatch, tmp_path):
    nbformat.write(notebook(SAY), tmp_path / "template.ipynb")
    monkeypatch.setattr(study, "template", lambda: tmp_path / "template.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="reached by ipc"):
        study.run_notebook(sm.Experiment(arm="mask", dataset="mnist"), tmp_path / "runs")


WHERE = "import sys\nraise RuntimeError('run by ' + sys.executable)"


@pytest.fixture(params=["JUPYTER_PATH", "JUPYTER_DATA_DIR", "a provisioner", "another name"])
def foreign(request, monkeypatch, tmp_path):
    """A notebook whose kernel Jupyter takes from another environment, or does not know."""
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    other = {"argv": ["false"], "display_name": "other", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(other))
    if request.param.startswith("JUPYTER"):
        monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        monkeypatch.setenv(request.param, str(tmp_path / "jupyter"))
    elif request.param == "a provisioner":
        factory = KernelProvisionerFactory.instance()
        monkeypatch.setattr(factory, "default_provisioner_name", "elsewhere")
    made = notebook(WHERE)
    if request.param == "another name":
        made.metadata["kernelspec"]["name"] = "my_env"
    return made


@pytest.mark.slow
def test_a_run_is_made_by_this_python(foreign, monkeypatch, tmp_path):
    """Whatever kernels Jupyter knows, a study's run is made by the Python that was asked."""
    nbformat.write(foreign, tmp_path / "template.ipynb")
    monkeypatch.setattr(study, "template", lambda: tmp_path / "template.ipynb")
    by = f"run by {re.escape(sys.executable)}"
    with pytest.raises(papermill.PapermillExecutionError, match=by):
        study.run_notebook(sm.Experiment(arm="mask", dataset="mnist"), tmp_path / "runs")


AS_THE_BOOK = """
import sys
import types
import nbformat
import evidence
from jupyter_cache.executors import utils
evidence._read_in_parallel(types.SimpleNamespace(extensions={}))
made = nbformat.read("page.ipynb", 4)
done = utils.single_nb_execution(made, ".", timeout=120, allow_errors=False)
nbformat.write(made, "made.ipynb")
print(done.err)
"""


def as_the_book(page, folder: Path):
    """A page's notebook, run as the build of the book runs it, and what stopped it."""
    nbformat.write(page, folder / "page.ipynb")
    found = {"PYTHONPATH": f"{ROOT}:{ROOT / 'book' / '_extensions'}"}
    done = subprocess.run(
        [sys.executable, "-c", AS_THE_BOOK],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | found,
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / "made.ipynb", 4), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("foreign", ["JUPYTER_PATH"], indirect=True)
def test_a_page_is_made_by_this_python(foreign, tmp_path):
    """So is a page of the book, which names its kernel itself."""
    assert f"run by {sys.executable}" in as_the_book(foreign, tmp_path)[1]


@pytest.mark.slow
def test_a_page_takes_no_port(tmp_path):
    assert "reached by ipc" in as_the_book(notebook(SAY), tmp_path)[1]


@pytest.mark.slow
def test_a_page_finds_its_modules_imported(tmp_path):
    """What the pages share is imported once for all; figures come out as vectors all the same."""
    made, error = as_the_book(
        notebook(
            "import os, sys\nprint(os.getcwd())",
            "'supermask_tf.paper.pages.index' in sys.modules, 'seaborn' in sys.modules",
            "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nfig",
        ),
        tmp_path,
    )
    assert error.strip() == "None"
    where, imported, figure = (cell.outputs for cell in made.cells)
    assert where[0]["text"].strip() == os.path.realpath(tmp_path)
    assert imported[0]["data"]["text/plain"] == "(True, True)"
    assert "image/svg+xml" in figure[0]["data"]
