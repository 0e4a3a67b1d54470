"""How structured masks are described."""

import pytest

from supermask_tf.groups import Groups, parse


@pytest.mark.parametrize("text", ["4:2", "0:4", "1:100", "0x3", "1x1", "rows", "2:4:8", ""])
def test_groups_that_are_none(text):
    with pytest.raises(ValueError, match="is no grouping: give N:M"):
        parse(text)


def test_groups_are_parsed():
    assert parse("2:4") == Groups(kept=2, of=4) and parse("2:4").density == 0.5
    assert parse("16x1") == Groups(inputs=16, outputs=1) and parse("16x1").density is None
    assert parse("channels") == Groups(channels=True)
