"""What others made is read without trust: damaged and hostile files get one clear sentence; nothing
of them is executed.
"""

import ast
import importlib
import io
import json
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import _arrays
from supermask_tf import archives, data, records
from supermask_tf.experiment import Experiment
from supermask_tf.records import Run, RunSet, page
from supermask_tf.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]
STEADY = settings(
    max_examples=70,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def refused(read, path, *kinds):
    """Read a file that need not be refused; if it is, then in one sentence of moderate length, and
    with little memory.
    """
    tracemalloc.start()
    try:
        read(path)
    except kinds as error:
        assert 10 < len(str(error)) < 2_000_000 and "\n" not in str(error), str(error)[:500]
        return True
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 400e6, f"{used / 1e6:.0f} MB"
    return False


# --- archives -------------------------------------------------------------------------------------


def packed(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def member(header: str, content: bytes = b"", version=(1, 0)) -> bytes:
    """An .npy with this text as its header."""
    text = header.encode("latin1") + b"\n"
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version == (1, 0) else "<I", len(text))
        + text
        + content
    )


def zipped(*members: tuple[str, bytes], compression=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def declared(descr, shape, order=False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


GOOD = packed(**_arrays())
HOSTILE = {
    "an array of more than the memory": zipped(
        ("x_train.npy", member(declared("|u1", (10**7, 1000, 1000, 3))))
    ),
    "an array of negative size": zipped(("x_train.npy", member(declared("|u1", (-5,)), b"12345"))),
    "sizes whose product overflows": zipped(
        ("x_train.npy", member(declared("|u1", (2**63, 2**63, 0, 1))))
    ),
    "a header that is code": zipped(("x_train.npy", member("__import__('os').mkdir('exploded')"))),
    "a header nested deeply": zipped(("x_train.npy", member("-" * 9000 + "1"))),
    "a header of 64 KB": zipped(("x_train.npy", member(" " * 60_000 + declared("|u1", (0,))))),
    "an unknown version": zipped(("x_train.npy", member(declared("|u1", (3,)), b"123", (9, 0)))),
    "objects": zipped(
        ("x_train.npy", member(declared("|O", (1,)), b"cos\nmkdir\n(S'exploded'\ntR."))
    ),
    "a structure that holds objects": zipped(
        ("x_train.npy", member(declared([("a", "|O")], (1,)), b"cos\nmkdir\n(S'exploded'\ntR."))
    ),
    "records": zipped(("x_train.npy", member(declared([("a", "<i4")], (1,)), b"1234"))),
    "dates": zipped(("x_train.npy", member(declared("<M8[s]", (1,)), b"12345678"))),
    "a bomb": zipped(("x_train.npy", member(declared("|u1", (300 * 2**20,)), bytes(300 * 2**20)))),
    "a name that leads out": zipped(("../../x_train.npy", member(declared("|u1", (1,)), b"1"))),
    "an absolute name": zipped(("/etc/x_train.npy", member(declared("|u1", (1,)), b"1"))),
    "a name for Windows": zipped(("..\\x_train.npy", member(declared("|u1", (1,)), b"1"))),
    "two of one name": zipped(
        ("x_train.npy", member(declared("|u1", (1,)), b"1")),
        ("x_train.npy", member(declared("|u1", (1,)), b"2")),
    ),
    "a compression of its own": zipped(
        ("x_train.npy", member(declared("|u1", (1,)), b"1")), compression=zipfile.ZIP_LZMA
    ),
    "more bytes than declared": zipped(("x_train.npy", member(declared("|u1", (1,)), b"123456"))),
    "fewer bytes than declared": zipped(("x_train.npy", member(declared("|u1", (9,)), b"123"))),
    "a member that is no array": zipped(("x_train.npy", b"hello")),
    "an empty archive": zipped(),
    "a single array": member(declared("|u1", (1,)), b"1"),
    "text": b"x_train,y_train\n",
    "nothing": b"",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archive(tmp_path, monkeypatch, what):
    """What no honest program wrote is refused in one sentence, without taking its memory or running
    its code.
    """
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.npz"
    path.write_bytes(HOSTILE[what])
    assert refused(lambda path: archives.read(path, ["x_train"]), path, ValueError)
    assert refused(lambda path: data.load(str(path)), path, ValueError)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.npz"]


def test_encrypted_member(tmp_path):
    """A member that asks for a password is refused like any other."""
    content = bytearray(zipped(("x_train.npy", member(declared("|u1", (1,)), b"1"))))
    content[6] |= 1  # the flag, in the member's own header and in the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(ValueError, match="password"):
        archives.read(tmp_path / "mine.npz")


@pytest.mark.parametrize("most", [0, 2**40])
def test_size_in_the_directory_is_not_believed(tmp_path, most):
    """A directory that declares gigabytes, with a header to match, does not get them."""
    content = bytearray(zipped(("x_train.npy", member(declared("|u1", (3 * 10**9,))))))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 3 * 10**9 + len(member(declared("|u1", (3 * 10**9,)))))
    (tmp_path / "mine.npz").write_bytes(content)
    assert refused(lambda path: archives.read(path, most=most), tmp_path / "mine.npz", ValueError)


def test_stored_size_is_not_believed(tmp_path):
    """Nor does one that says so of a member that is not packed."""
    header, path = member(declared("|u1", (3 * 10**9,))), tmp_path / "mine.npz"
    content = bytearray(zipped(("x_train.npy", header), compression=zipfile.ZIP_STORED))
    at = content.index(b"PK\x01\x02") + 20
    size = struct.pack("<I", 3 * 10**9 + len(header))
    for sizes in (slice(at + 4, at + 8), slice(at, at + 4)):  # of the array, then in the file too
        content[sizes] = size
        path.write_bytes(content)
        assert refused(lambda path: archives.read(path, most=2**40), path, ValueError)


def test_large_records_are_read(tmp_path):
    """A WRN-28-8's open masks, and 23 million logits at 1, pack very well and are honest."""
    n = 23_400_000
    arrays = {"logits": np.ones(n, np.float32), "mask": np.packbits(np.ones(n, bool))}
    np.savez_compressed(tmp_path / "state.npz", **arrays)
    read = archives.read(tmp_path / "state.npz")
    assert all(np.array_equal(read[key], arrays[key]) for key in arrays)


def test_what_is_whole_is_read(tmp_path):
    """Every kind of plain array survives, Fortran's order and no dimension included."""
    arrays = {
        "a/b/c": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6, dtype=np.int8).reshape(3, 2)),
        "s": np.float32(3),
        "e": np.zeros((0, 5)),
        "t": np.array(["ä", "b"]),
    }
    np.savez(tmp_path / "one.npz", **arrays)
    read = archives.read(tmp_path / "one.npz")
    assert read.keys() == arrays.keys() and all(
        np.array_equal(read[key], arrays[key]) and read[key].dtype == arrays[key].dtype
        for key in arrays
    )


def cuts(content: bytes):
    """The content damaged: cut short, bytes changed, bytes put in between."""
    place = st.integers(0, len(content) - 1)
    return st.one_of(
        place.map(lambda at: content[:at]),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda p: content[: p[0]] + p[1] + content[p[0] + len(p[1]) :]
        ),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda p: content[: p[0]] + p[1] + content[p[0] :]
        ),
    )


HEADERS = st.builds(
    declared,
    st.sampled_from(
        ["|u1", "<f4", "<f8", ">i2", "|O", "<U9", "|V4", "<c8", "|b1", "nonsense", "|S5", "<m8[D]"]
    ),
    st.one_of(st.tuples(), st.lists(st.integers(-3, 2**62), max_size=5).map(tuple), st.just("x")),
    st.booleans(),
)


@pytest.mark.filterwarnings("ignore")
@STEADY
@given(
    content=st.one_of(
        cuts(GOOD),
        st.binary(max_size=200),
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "../up.npy", "a"]
                ),
                st.builds(member, HEADERS, st.binary(max_size=40)),
            ),
            max_size=5,
        ).map(lambda m: zipped(*m)),
        st.dictionaries(
            st.sampled_from(["x_train", "y_train", "x_test", "y_test"]),
            st.sampled_from(
                [
                    np.zeros((20, 2, 2), np.uint8),
                    np.zeros(20, np.int64),
                    np.zeros(20, object),
                    np.full(20, "x"),
                    np.zeros((20, 2, 2)),
                    np.full((20, 2, 2), np.nan),
                    np.zeros(()),
                    np.zeros(20, "M8[s]"),
                    -np.ones(20, int),
                ]
            ),
            min_size=4,
        ).map(lambda arrays: packed(**arrays)),
    )
)
def test_any_npz(tmp_path, content):
    """70 damaged and invented archives are data, or a ValueError of one sentence."""
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    refused(lambda path: data.load(str(path)), path, ValueError)


def test_records_with_hostile_arrays(runs, tmp_path):
    """The arrays of a record are read with the same care, and the sentence names the file."""
    import shutil

    run = Run(shutil.copytree(runs.mask.path, tmp_path / "run"))
    for file, read in (
        ("masks.npz", lambda: run.masks({"x_train": (8,)})),
        ("state.npz", run.state),
    ):
        for what in ("objects", "a bomb", "nothing", "a single array"):
            (run.path / file).write_bytes(HOSTILE[what])
            with pytest.raises(ValueError, match=rf"run/{file} is damaged \("):
                read()
    (run.path / "masks.npz").write_bytes(packed(x_train=np.zeros(1)))
    with pytest.raises(ValueError, match="belongs to another network"):
        run.masks({"x_train": (8,)})


# --- experiments and studies ----------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        [
            "a\0b.npz",
            "x" * 5000 + ".npz",
            "$(touch exploded).npz",
            "../../etc/passwd",
            "; touch exploded",
            "mnist",
            "finetune",
            "\ud800.npz",
            "/dev/zero",
        ]
    ),
)
PARAMETERS = st.dictionaries(
    st.one_of(st.sampled_from([*Experiment.__dataclass_fields__, "parent"]), st.text(max_size=5)),
    ODD,
    max_size=6,
)
RECORD = json.dumps(dict(Experiment().parameters().items()) | {"parent": {"arm": "mask"}}).encode()


def run_all(path):
    for experiment in Experiment.lineage(path):
        assert isinstance(experiment.name, str)
        experiment.parent(path.parent)


@pytest.mark.slow
@STEADY
@given(
    content=st.one_of(
        cuts(RECORD),
        st.binary(max_size=100),
        PARAMETERS.map(lambda p: json.dumps(p).encode()),
        st.sampled_from(
            [
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b'{"seed": ' + b"9" * 10_000 + b"}",
                b"{" + b" " * 2**21 + b"}",
                b'{"parent": [1], "arm": "mask"}',
                b'"text"',
                b"NaN",
            ]
        ),
    )
)
def test_any_experiment_file(tmp_path, monkeypatch, content):
    """70 damaged and invented experiment.json are an experiment, or one sentence."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "experiment.json"
    path.write_bytes(content)
    refused(run_all, path, ValueError, OSError)
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.json"]


STUDY = (
    b"title: A study\nruns:\n  mask: &base {arm: mask, seed: [0, 1], epochs: 3}\n  weights: {<<:"
    b" *base, arm: weights}\n  finetune: {arm: finetune, from: mask}\n"
)
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
BOMBS = {
    "aliases of aliases, as a title": LAUGHS + "title: *a39\nruns: {m: {arm: mask}}\n",
    "aliases of aliases, as a parameter": LAUGHS + "runs: {m: {arm: *a39}}\n",
    "mappings of mappings": (
        "b0: &b0 {x: 1}\n"
        + "".join(f"b{i}: &b{i} {{x: *b{i - 1}, y: *b{i - 1}}}\n" for i in range(1, 40))
        + "runs: *b39\n"
    ),
    "a value that holds itself": "runs: &r {m: *r}\n",
    "a list that holds itself": "runs: {m: {seed: &s [*s]}}\n",
    "a grid of billions": (
        "runs:\n  m: {"
        + ", ".join(
            f"{name}: [{', '.join(map(str, range(1, 200)))}]"
            for name in ("seed", "epochs", "batch_size", "width")
        )
        + "}\n"
    ),
    "depth": "runs: " + "[" * 20_000,
    "Python's objects": "runs: !!python/object/apply:os.mkdir [exploded]\n",
    "a Python name": "title: !!python/name:os.mkdir\nruns: {m: {arm: mask}}\n",
    "a number of 5,000 digits": f"runs: {{m: {{seed: {'9' * 5000}}}}}\n",
    "a long text": "title: " + "x" * 300_000 + "\nruns: {m: {arm: mask}}\n",
}


@pytest.mark.parametrize("what", BOMBS)
def test_hostile_study(tmp_path, monkeypatch, what):
    """A study file that would fill the memory, call functions or never end is refused in one
    sentence, at once.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yml").write_text(BOMBS[what])
    assert refused(Study.load, tmp_path / "mine.yml", ValueError)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yml"]


@STEADY
@given(
    content=st.one_of(
        cuts(STUDY),
        st.binary(max_size=100),
        st.text("{}[]:,&*!|>-# \n\"'abruns?%@", max_size=60).map(str.encode),
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers()),
            st.one_of(
                ODD,
                st.dictionaries(
                    st.one_of(
                        st.sampled_from([*Experiment.__dataclass_fields__, "from"]),
                        st.text(max_size=3),
                    ),
                    ODD,
                    max_size=4,
                ),
            ),
            max_size=3,
        ).map(lambda blocks: json.dumps({"runs": blocks}).encode()),
    )
)
def test_any_study_file(tmp_path, monkeypatch, content):
    """70 damaged and invented study files are a study, or one sentence."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yml"
    path.write_bytes(content)
    refused(Study.load, path, ValueError, OSError)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yml"]


# --- pages and code -------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_tables_carry_no_script(runs, tmp_path):
    """Free text of a record (the path of its data, its study's name) stands in the book's tables as
    text.
    """
    import shutil

    run = Run(shutil.copytree(runs.mask.path, tmp_path / SCRIPT.replace("/", "∕") / '"><script>x'))
    (run.path / "experiment.json").write_text(
        json.dumps(run.parameters | {"dataset": SCRIPT + ".npz", "estimator": SCRIPT})
    )
    (run.path / "summary.json").write_text(json.dumps(run.summary | {"processor": SCRIPT}))
    run = Run(run.path)
    for notebook in (False, True):
        if notebook:
            records.attach_notebook(run, {"cells": [], "metadata": {}})
        chosen = RunSet([run])
        for html in (
            chosen.listing().to_html(escape=False),
            page.page(run, [run]),
            chosen._repr_html_(),
            chosen.summary._repr_html_(),
            chosen.history._repr_html_(),
        ):
            assert "<script" not in html and "<img" not in html and "&lt;script" in html


def test_run_pages_run_no_script(tmp_path, runs, monkeypatch):
    """Labels of a record are text on its page; and the page forbids every script."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_extensions"))
    evidence = importlib.import_module("evidence")
    place = tmp_path / "runs" / "<b>study" / "<script>run"
    shutil.copytree(runs.mask.path, place)
    described = json.loads((place / "experiment.json").read_text())
    (place / "experiment.json").write_text(json.dumps(described | {"estimator": SCRIPT}))
    app = SimpleNamespace(
        srcdir=tmp_path, outdir=tmp_path / "html", builder=SimpleNamespace(name="html")
    )
    evidence._start_rendering(app)
    evidence._finish_rendering(app, None)
    text = next((tmp_path / "html").glob("runs/*/*.html")).read_text()
    assert "<script" not in text and "<img" not in text and "<b>study" not in text
    assert (
        text.count("&lt;script&gt;") >= 4
        and """content="script-src 'none'">""" in text.partition("<body>")[0]
    )


def test_nothing_unpickles_evaluates_or_calls_a_shell():
    """No way for a parameter or a file to become code: no pickle, eval, unsafe YAML, or shell
    anywhere in the package or the book's extension.
    """
    for path in [
        *(ROOT / "supermask_tf").glob("*.py"),
        *(ROOT / "book" / "_extensions").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}, line {getattr(node, 'lineno', 0)}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert not {"pickle", "marshal", "shelve", "joblib", "dill"} & {
                    name.name.partition(".")[0] for name in node.names
                } - {None}, where
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in (
                    "eval",
                    "exec",
                    "compile",
                    "os.system",
                    "os.popen",
                    "yaml.load",
                    "yaml.unsafe_load",
                ), where
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert (
                    options.get("shell", "False") == "False"
                    and options.get("allow_pickle", "False") == "False"
                ), where
                assert called != "np.load", f"{where}: read archives with archives.read"
