"""A bundle's files: whole or refused, and read without TensorFlow."""

import json
import subprocess
import sys

import pytest

from supermask_tf import bundle, data
from supermask_tf.ground.files import digest


@pytest.fixture
def folder(tmp_path):
    """A bundle without programs that would run: its files are what matters."""
    bundle.write_bundle(
        tmp_path / "mine",
        {"programs": {"a": {}}, "experiments": {}},
        {"programs/a-train.hlo": b"program", "run.py": b"pass"},
    )
    return tmp_path / "mine"


def test_bundle_round_trip(folder):
    """What was written is what is read."""
    opened = bundle.Bundle.open(folder)
    assert (
        opened.programs == {"a": {}}
        and opened.experiments == {}
        and sorted(opened.manifest["files"]) == ["programs/a-train.hlo", "run.py"]
    )


@pytest.mark.parametrize(
    "name, change",
    [
        ("programs/a-train.hlo", lambda content: content[:-1]),
        ("programs/a-train.hlo", lambda content: b"q" + content[1:]),
        ("run.py", lambda content: None),
        ("manifest.json", lambda content: content.replace(b"experiments", b"experimentt")),
        ("manifest.json", lambda content: content[:50]),
        ("manifest.json", lambda content: b"[]"),
        ("manifest.json", lambda content: b"\xff"),
        ("manifest.json", lambda content: b"[" * 100_000),
    ],
)
def test_each_damaged_file_is_refused(folder, name, change):
    """One sentence that names the file and what to do."""
    content = change((folder / name).read_bytes())
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="damaged.*export or copy the bundle again") as caught:
        bundle.Bundle.open(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_no_bundle_and_another_format(folder, tmp_path):
    """A folder that is none, and one of another version."""
    with pytest.raises(FileNotFoundError, match="make one with `supermask export`"):
        bundle.Bundle.open(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    manifest["format"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checksum": digest(manifest)}))
    with pytest.raises(ValueError, match="format 99.*export the bundle again"):
        bundle.Bundle.open(folder)


def test_bundle_is_never_written_over(folder):
    """Nor is a part of one left where it can't be written."""
    with pytest.raises(FileExistsError, match="give another folder"):
        bundle.write_bundle(folder, {}, {})
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_data_in_parts(npz, arrays, tmp_path):
    """The parts of a file, as `split` names them and in any order, are that file; whole ones are
    taken as they are.
    """
    content = open(npz(arrays()), "rb").read()
    parts = [tmp_path / f"cut.npz.a{letter}" for letter in "abc"]
    for index, part in enumerate(parts):
        part.write_bytes(content[index * 1000 : None if index == 2 else (index + 1) * 1000])
    with bundle.data_files([parts[1], tmp_path / "mine.npz", parts[2], parts[0]]) as files:
        assert sorted(files) == ["cut", "mine"] and files["cut"].read_bytes() == content
        assert data.load(str(files["cut"])).fingerprint == data.load(str(files["mine"])).fingerprint
    assert not files["cut"].exists() and files["mine"].exists()
    (tmp_path / "small.npz.aa").write_bytes(content)
    with bundle.data_files([tmp_path / "small.npz.aa"]) as files:
        assert data.load(str(files["small"])).image_shape, "a small file has one part"
    with (
        bundle.data_files(parts[:2]) as files,
        pytest.raises(ValueError, match="can't be read as a dataset"),
    ):
        data.load(str(files["cut"]))


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("none.npz", FileNotFoundError, "no such file"),
        ("data.bin", ValueError, "give an .npz, or the parts"),
        ("a.npzz", ValueError, "give an .npz"),
    ],
)
def test_data_that_is_none(tmp_path, name, error, words):
    """A wrong name is told before it is read."""
    if error is ValueError:
        (tmp_path / name).touch()
    with pytest.raises(error, match=words), bundle.data_files([tmp_path / name]):
        pass


def test_what_a_bundle_carries_needs_numpy_alone():
    """The modules that are copied into a bundle import neither TensorFlow nor pandas, nor JAX
    before they run.
    """
    code = (
        "import sys; from supermask_tf import bundle, data, feed, results, runner, tickets, xla;"
        " sys.exit(sorted({'tensorflow', 'keras', 'pandas', 'jax', 'yaml'} & set(sys.modules))"
        " or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
