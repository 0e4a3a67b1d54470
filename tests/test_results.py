"""The files that training a bundle leaves: whole or refused, each small enough for every
machine.
"""

import numpy as np
import pandas as pd
import pytest

from supermask_tf import records, results

ARRAYS = {f"layer{i}/kernel": np.full((1000, 1000), i, np.float32) for i in range(10)} | {
    "steps": np.int64(3)
}


def test_state_comes_back_from_files_below_16_mib(tmp_path):
    """What was kept is what is found; the newer state stands in place of the older one."""
    assert results.kept(tmp_path / "run") is None
    results.keep(tmp_path / "run", {"epoch": 1}, {"old": np.zeros(3)})
    results.keep(tmp_path / "run", {"epoch": 2}, ARRAYS)
    facts, arrays = results.kept(tmp_path / "run")
    assert facts == {"epoch": 2} and arrays.keys() == ARRAYS.keys()
    assert all(
        np.array_equal(arrays[path], array) and arrays[path].dtype == array.dtype
        for path, array in ARRAYS.items()
    )
    files = [*(tmp_path / "run").iterdir()]
    assert (
        len(files) > 3
        and max(file.stat().st_size for file in files) < 2**24
        and [path.name for path in tmp_path.iterdir()] == ["run"]
    )


@pytest.mark.parametrize("cut", [1, 2])
def test_a_state_survives_a_kill_while_it_is_kept(tmp_path, monkeypatch, cut):
    """Between any two renames a whole state is found: the new one, once all of it is written."""
    results.keep(tmp_path / "run", {"epoch": 1}, ARRAYS)
    replace, calls = results.os.replace, []

    def killed(*paths):
        calls.append(paths)
        if len(calls) == cut:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(results.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        results.keep(tmp_path / "run", {"epoch": 2}, ARRAYS)
    monkeypatch.undo()
    facts, arrays = results.kept(tmp_path / "run")
    assert facts == {"epoch": cut} and arrays.keys() == ARRAYS.keys()
    results.keep(tmp_path / "run", {"epoch": 3}, ARRAYS)
    assert results.kept(tmp_path / "run")[0] == {"epoch": 3} and [
        path.name for path in tmp_path.iterdir()
    ] == ["run"]


@pytest.mark.parametrize("file", ["facts.json", "part-00.npz", "part-02.npz"])
def test_damaged_state_is_refused(tmp_path, file):
    """Any of its files."""
    results.keep(tmp_path / "run", {"epoch": 2}, ARRAYS)
    content = bytearray((tmp_path / "run" / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run" / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        results.kept(tmp_path / "run")


def test_result_is_read_as_a_record(tmp_path):
    """`records` reads what this module writes, checksums included: the two are one format."""
    rows, layers = (
        [{"epoch": 1, "loss": 0.1 + 0.2}],
        [{"layer": 0, "path": "dense1", "kind": "dense", "weights": 12, "masked": 1 / 3}],
    )
    bits = np.arange(12).reshape(3, 4) % 3 > 0
    results.write_result(
        tmp_path / "run",
        {"arm": "mask", "note": "θ0"},
        rows,
        layers,
        {"dense1/kernel": np.packbits(bits)},
        {"bn/gamma": np.ones(3)},
        {"dense1/kernel": np.full((3, 4), 0.5)},
        {"best_epoch": 1, "test_images": 5},
        np.array([True, False, True, True, False]),
    )
    run = records.Run.load(tmp_path / "run")
    assert (
        not run.damaged
        and run.parameters == {"arm": "mask", "note": "θ0"}
        and run.summary["best_epoch"] == 1
    )
    assert run.right().tolist() == [True, False, True, True, False]
    pd.testing.assert_frame_equal(run.history, pd.DataFrame(rows))
    pd.testing.assert_frame_equal(run.utilisation, pd.DataFrame(layers))
    assert np.array_equal(run.masks({"dense1/kernel": (3, 4)})["dense1/kernel"], bits)
    masks, state, weights = results.read_result(run.path, weights=True)
    assert (
        masks["dense1/kernel"].dtype == np.uint8
        and state["bn/gamma"].sum() == 3
        and weights["dense1/kernel"].sum() == 6
    )
    assert results.read_result(run.path, weights=False)[2] == {}
    with pytest.raises(FileNotFoundError, match="not finished"):
        results.read_result(tmp_path / "other", weights=False)
