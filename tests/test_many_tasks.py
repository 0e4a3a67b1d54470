"""The studies of many tasks: their records, going on, and what the book makes of them."""

import json

import numpy as np
import pytest

import supermask_tf as sm
from supermask_tf import cli
from supermask_tf.paper.pages import Book
from supermask_tf.paper.pages import many_tasks as page
from supermask_tf.records import load_tasks
from supermask_tf.studies import many_tasks
from supermask_tf.studies.many_tasks import ManyTasks


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """MNIST and Fashion-MNIST of a few hundred images, in place of the real ones."""
    random = np.random.default_rng(0)
    digits = many_tasks.enlarged(sm.data.load("digits"))
    noise = random.integers(0, 40, digits.train[0].shape, dtype=np.uint8)
    other = many_tasks.dataclasses.replace(
        digits, train=(255 - np.maximum(digits.train[0], noise), digits.train[1])
    )
    return {"mnist": digits, "fashion_mnist": other}


@pytest.fixture
def small(images, monkeypatch):
    real = sm.data.load
    monkeypatch.setattr(
        many_tasks.data, "load", lambda name: images[name] if name in images else real(name)
    )


@pytest.mark.long
def test_a_study_is_gone_on_with(small, tmp_path, capsys, monkeypatch):
    """Stopped after the first task, it goes on with the second, to the same record; a study of
    more tasks takes over what is there.
    """
    asked = ["tasks", "--tasks", "2", "--steps", "12", "--directory"]
    assert cli.main([*asked, str(tmp_path / "whole")]) == 0
    (whole,) = load_tasks(tmp_path / "whole")
    assert whole.path.name == ManyTasks(tasks=2, steps=12).name and not whole.damaged
    assert list(whole.table.task) == ["permuted-000", "permuted-001"]
    assert (whole.table.accuracy == whole.table.after_last).all()
    assert whole.table.accuracy.min() > 0.3 and (whole.table.groups_128 == 2).all()
    assert whole.facts["network"] == [784, 300, 300, 100]

    learn, learned = many_tasks._Work._learn, []

    def once(work, task):
        if learned:
            raise KeyboardInterrupt
        learned.append(task)
        learn(work, task)

    monkeypatch.setattr(many_tasks._Work, "_learn", once)
    assert cli.main([*asked, str(tmp_path / "stopped")]) == 130
    assert load_tasks(tmp_path / "stopped") == []
    monkeypatch.setattr(many_tasks._Work, "_learn", learn)
    assert cli.main([*asked, str(tmp_path / "stopped")]) == 0
    (again,) = load_tasks(tmp_path / "stopped")
    same = [column for column in whole.table.columns if column != "seconds"]
    assert again.table[same].equals(whole.table[same])

    capsys.readouterr()
    ManyTasks(tasks=1, steps=12).run(tmp_path / "stopped")
    assert "test accuracy" not in capsys.readouterr().out, "its task was learned already"
    book = Book(tmp_path)
    (tmp_path / "stopped").rename(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "tasks")
    (tmp_path / "runs").mkdir()
    (tmp_path / "tasks").rename(tmp_path / "runs" / "tasks")
    assert len(page.records(book)) == 2


@pytest.mark.long
def test_three_datasets(small, tmp_path):
    """Each with its own images, 28 × 28; a damaged record is refused."""
    place = ManyTasks("datasets", steps=12).run(tmp_path, progress=False)
    (record,) = load_tasks(tmp_path)
    assert list(record.table.task) == ["mnist", "fashion_mnist", "digits"]
    assert set(record.facts["fingerprints"]) == set(record.table.task)
    (place / "tasks.csv").write_text((place / "tasks.csv").read_text().replace("0.", "0.9", 1))
    with pytest.raises(ValueError, match="is damaged: take it away, or make it again"):
        load_tasks(tmp_path)


def test_images_of_tasks():
    """Pixels are moved, never mixed, alike in all images; another task moves them otherwise."""
    digits = sm.data.load("digits")
    one, same, two = (many_tasks.permuted(digits, 0, task) for task in ("a", "a", "b"))
    np.testing.assert_array_equal(one.train[0], same.train[0])
    assert (one.train[0] != two.train[0]).any()
    np.testing.assert_array_equal(
        np.sort(one.test[0].reshape(len(one.test[0]), -1)),
        np.sort(digits.test[0].reshape(len(digits.test[0]), -1)),
    )
    large = many_tasks.enlarged(digits).train[0]
    assert large.shape[1:] == (28, 28, 1) and not large[:, :2].any()
    np.testing.assert_array_equal(large[:, 3:26:3, 3:26:3], digits.train[0])
    scale, offset = many_tasks.standardised(digits).scale
    fed = digits.train[0] * scale + offset
    assert abs(fed.mean()) < 1e-9 and fed.std() == pytest.approx(1)


@pytest.mark.parametrize(
    "parameters, says",
    [
        ({"source": "letters"}, "Unknown source 'letters': choose one of permuted_mnist, datasets"),
        ({"tasks": 0}, "tasks=0 is out of range: give more than 0"),
        ({"source": "datasets", "tasks": 4}, "tasks=4 is more than there are datasets"),
    ],
)
def test_mistakes(parameters, says):
    with pytest.raises(ValueError, match=says):
        ManyTasks(**parameters)


def test_the_page_of_the_committed_records(tmp_path):
    """Its texts and tables, from the committed records and from none."""
    empty = Book(tmp_path)
    (tmp_path / "book" / "published").mkdir(parents=True)
    published = Book(page.__file__.split("/supermask_tf/")[0])
    source = published.checkout / "book" / "published" / "field.csv"
    (tmp_path / "book" / "published" / "field.csv").write_text(source.read_text())
    assert page.texts(empty)["most"] == "not measured yet"
    for does in (page.figure, page.table, page.datasets):
        assert does(empty) == "No record yet."
    texts = page.texts(published)
    assert texts["five_published"] == "92.4 %" and float(texts["most"]) >= 5
    same, of = texts["same"].split(" of ")
    assert same == of, "no task was disturbed"
    assert "supermask tasks --source permuted_mnist" in page.evidence(published).data


def test_committed_records_hold():
    """Each is whole, its name is that of its parameters, and the network is the authors'."""
    book = Book(page.__file__.split("/supermask_tf/")[0])
    for record in load_tasks(book.checkout / "runs" / "tasks"):
        assert record.path.name == ManyTasks(**record.parameters).name
        assert record.facts["network"] == [784, 300, 300, 100]
        assert record.table.task.is_unique and len(record.table) == record.parameters["tasks"]
        assert json.dumps(record.facts)
