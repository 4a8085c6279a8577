import itertools

import numpy as np
import pytest

from nas.genotype import IntArray
from nas.search.row_index import RowIndex


class Plain:
    """The same with a dictionary."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}

    def insert(self, batch: IntArray) -> list[int]:
        return [self.places.setdefault(row.tobytes(), len(self.places)) for row in batch]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("hashes", ["real", "weak", "equal"])
def test_places_are_those_of_a_dictionary(
    hashes: str, dtype: type[np.signedinteger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the hashes: with few or a single one, too."""
    if hashes != "real":
        bits = np.uint64(61 if hashes == "weak" else 63)
        real = RowIndex._hash
        monkeypatch.setattr(RowIndex, "_hash", lambda self, rows: real(self, rows) >> bits << bits)
    rng, index, plain = np.random.default_rng(0), RowIndex(5, np.dtype(dtype)), Plain()
    for size in (0, 1, 7, 300, 40, 900 if hashes == "real" else 60):
        batch = rng.integers(0, 4, (size, 5))
        known = index.look_up(batch)
        before = [plain.places.get(row.tobytes(), -1) for row in batch]
        assert known.places.tolist() == before
        expected = plain.insert(batch)
        assert index.insert(known).tolist() == expected
        assert len(index) == len(plain.places)
    assert [row.astype(np.int64).tobytes() for row in index.rows] == list(plain.places)


def test_it_grows_past_its_first_capacity() -> None:
    rng, index = np.random.default_rng(1), RowIndex(6, np.dtype(np.int8))
    batch = rng.integers(0, 30, (20_000, 6))
    expected = Plain().insert(batch)
    for start in range(0, 20_000, 3000):
        assert index.insert(index.look_up(batch[start : start + 3000])).tolist() == expected[start : start + 3000]
    assert index.look_up(batch).places.tolist() == expected


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_rows_that_differ_in_few_places_hash_differently(dtype: type[np.signedinteger]) -> None:
    """All rows that differ in two places of each of two words."""
    lanes = 8 // np.dtype(dtype).itemsize
    index = RowIndex(2 * lanes, np.dtype(dtype))
    choices = np.stack(np.meshgrid(*[np.arange(8)] * 4), axis=-1).reshape(-1, 4)
    for first, second in itertools.combinations(range(lanes), 2):
        rows = np.zeros((len(choices), 2 * lanes), dtype=int)
        rows[:, [first, second, lanes + first, lanes + second]] = choices
        assert len(np.unique(index.look_up(rows).hashes)) == len(choices)
