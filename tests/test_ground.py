"""What everything stands on: schedules by their formulas, files that are whole or absent, facts of
the machine.
"""

import math
import os

import pytest

from supermask_tf.ground import files, machine, schedules


def test_cosine():
    """Half a cosine: the rate at the start, half of it in the middle, zero after the last step."""
    assert schedules.cosine_rate(0.4, 0, 8) == 0.4
    assert schedules.cosine_rate(0.4, 4, 8) == pytest.approx(0.2)
    assert schedules.cosine_rate(0.4, 8, 8) == pytest.approx(0)
    assert schedules.cosine_rate(0.4, 2, 8) == pytest.approx(0.2 * (1 + math.sqrt(0.5)))


def test_density_comes_down():
    """From its start by a cubic to its end in the middle of the run, and stays there."""
    assert schedules.density_at(0, 10, 1.0, 0.2) == 1.0
    assert schedules.density_at(1, 10, 1.0, 0.2) == pytest.approx(0.2 + 0.8 * 0.8**3)
    assert [schedules.density_at(epoch, 10, 1.0, 0.2) for epoch in (5, 6, 9)] == [0.2] * 3


@pytest.mark.parametrize("epochs, first", [(2, 2), (5, 4), (10, 6)])
def test_epochs_that_count(epochs, first):
    """An epoch counts if the density was at its end in the whole epoch before it; without a start
    all do.
    """
    counting = [
        epoch for epoch in range(epochs + 1) if schedules.density_reached(epoch, epochs, 1.0)
    ]
    assert counting[0] == first
    assert all(schedules.density_reached(epoch, epochs, None) for epoch in range(epochs))


def test_folder_is_whole_or_absent(tmp_path):
    """A folder appears with all that was written; after an error nothing of it is left."""
    with files.whole_folder(tmp_path / "one") as partial:
        files.write_json(partial / "a.json", {"ä": 1})
        assert not (tmp_path / "one").exists()
    assert files.read_json(tmp_path / "one" / "a.json") == {"ä": 1}
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o755
    with pytest.raises(KeyError), files.whole_folder(tmp_path / "two") as partial:
        (partial / "b").touch()
        raise KeyError
    assert os.listdir(tmp_path) == ["one"]


def test_file_is_replaced_at_once(tmp_path):
    """A writer that fails leaves the file that was there, and nothing beside it."""
    place = tmp_path / "new" / "file"
    files.replace_file(place, lambda path: path.write_text("first"))

    def fail(path):
        path.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        files.replace_file(place, fail)
    assert place.read_text() == "first" and os.listdir(place.parent) == ["file"]


@pytest.mark.parametrize(
    "content, words",
    [
        ("[1]", "no parameters"),
        ("{", "Expecting"),
        ("[" * 100_000, "nested too deeply"),
        ('"' + "a" * 2**20 + '"', "more than"),
    ],
)
def test_json_out_of_proportion(tmp_path, content, words):
    """What is no object, too deep or too large is refused before values are built of it."""
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        files.read_json(tmp_path / "a.json")


def test_digest_does_not_depend_on_the_layout():
    """Two orders of the same keys have one checksum; another value has another."""
    assert (
        files.digest({"a": 1, "b": 2})
        == files.digest({"b": 2, "a": 1})
        != files.digest({"a": 1, "b": 3})
    )


def test_machine():
    """There is a processor with a name, and at least one core."""
    assert machine.processor() and 1 <= machine.cores() <= os.cpu_count()
