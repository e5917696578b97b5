"""Rows are those of every older version, to the last bit: a run that an older version began resumes with its rows."""

import json
from pathlib import Path

import pytest
from rows_of_today import GOLDEN_ROWS, KINDS, hashes_of

from electrain.data.shards.shards import open_shards


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_committed_ones(tiny_shards: Path, kind: str) -> None:
    assert hashes_of(kind, open_shards(tiny_shards)) == json.loads(GOLDEN_ROWS.read_text())[kind]
