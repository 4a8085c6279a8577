"""Distinct rows of small integers and the place of each, for whole batches at once.

A hash table with linear probing (Knuth, The Art of Computer Programming 3, section 6.4, algorithm L) whose every step
is taken for all rows of a batch. Rows with equal hashes are compared, so places are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.genotype import BoolArray, IntArray

_Hashes = npt.NDArray[np.uint64]
_FIRST_CAPACITY = 1024
_WORD = 8
_HALF = np.uint64(32)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Lookup:
    """What an index knows of a batch of rows.

    Attributes:
        rows: The batch, padded, shape (n, columns + padding).
        hashes: Hash of each row, shape (n,).
        owner: For each row, the first of the batch that equals it, shape (n,).
        places: Place of each row, -1 where it is new, shape (n,).
    """

    rows: IntArray
    hashes: _Hashes
    owner: IntArray
    places: IntArray

    @property
    def fresh(self) -> IntArray:
        """Rows that are new, the first of each, ascending."""
        return np.flatnonzero((self.places < 0) & (self.owner == np.arange(len(self.owner))))

    def taken(self, which: IntArray) -> Lookup:
        """Of the batch some rows, all different."""
        return Lookup(self.rows[which], self.hashes[which], np.arange(len(which)), self.places[which])


class RowIndex:
    """Rows of one integer type in the order they came, each once; grows by doubling."""

    def __init__(self, columns: int, dtype: np.dtype[np.signedinteger]) -> None:
        self._columns, self._size = columns, 0
        lanes = _WORD // dtype.itemsize
        self._rows: IntArray = np.zeros((_FIRST_CAPACITY, -(-columns // lanes) * lanes), dtype)
        self._hashes: _Hashes = np.zeros(_FIRST_CAPACITY, dtype=np.uint64)
        self._table: IntArray = np.full(2 * _FIRST_CAPACITY, -1)
        drawn = np.random.default_rng(0).integers(2**63, size=self._rows.shape[1] // lanes, dtype=np.uint64)
        self._factors = 2 * drawn + 1

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> IntArray:
        """All rows, shape (n, columns), read-only."""
        view = self._rows[: self._size, : self._columns]
        view.flags.writeable = False
        return view

    def look_up(self, batch: IntArray) -> Lookup:
        """Find rows of shape (n, columns); values need to fit the index's type."""
        rows = np.zeros((len(batch), self._rows.shape[1]), self._rows.dtype)
        rows[:, : self._columns] = batch
        hashes = self._hash(rows)
        owner = _first_equal(rows, hashes)
        return Lookup(rows, hashes, owner, self._found(rows, hashes))

    def insert(self, lookup: Lookup) -> IntArray:
        """Take in what is new of a batch that was just looked up, in order; gives the places of all its rows."""
        fresh = lookup.fresh
        places = lookup.places.copy()
        places[fresh] = new = np.arange(self._size, self._size + len(fresh))
        self._reserve(self._size + len(fresh))
        self._rows[new], self._hashes[new] = lookup.rows[fresh], lookup.hashes[fresh]
        self._size += len(fresh)
        self._enter(new)
        return places[lookup.owner]

    def _hash(self, rows: IntArray) -> _Hashes:
        """Multiply-shift of 64-bit words (Dietzfelbinger, 1996): the leading bits are well mixed.

        A product only carries upwards, so words that differ at their top alone would often hash the same. Hence every
        word is mixed first, one to one (as by Steele et al., Fast splittable pseudorandom number generators, 2014).
        """
        words: _Hashes = rows.view(np.uint64)
        words = (words ^ (words >> _HALF)) * _MIX
        hashes: _Hashes = (words ^ (words >> _HALF)) @ self._factors
        return hashes

    def _slots(self, hashes: _Hashes) -> IntArray:
        """Where the table is looked at first."""
        return (hashes >> np.uint64(65 - len(self._table).bit_length())).astype(np.int64)

    def _found(self, rows: IntArray, hashes: _Hashes) -> IntArray:
        places, slots = np.full(len(rows), -1), self._slots(hashes)
        waiting = np.arange(len(rows))
        while len(waiting):
            there = self._table[slots[waiting]]
            waiting, there = waiting[there >= 0], there[there >= 0]
            equal: BoolArray = self._hashes[there] == hashes[waiting]
            equal[equal] = (self._rows[there[equal]] == rows[waiting[equal]]).all(axis=1)
            places[waiting[equal]] = there[equal]
            waiting = waiting[~equal]
            slots[waiting] = (slots[waiting] + 1) % len(self._table)
        return places

    def _enter(self, places: IntArray) -> None:
        """Put distinct rows that the table lacks into it."""
        slots = self._slots(self._hashes[places])
        while len(places):
            empty = self._table[slots] < 0
            self._table[slots[empty]] = places[empty]  # of several with one slot, one stays
            left = self._table[slots] != places
            places, slots = places[left], (slots[left] + 1) % len(self._table)

    def _reserve(self, size: int) -> None:
        if size > len(self._rows):
            self._rows, self._hashes = grown(self._rows, size), grown(self._hashes, size)
            self._table = np.full(1 << (2 * len(self._rows) - 1).bit_length(), -1)
            self._enter(np.arange(self._size))


def grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array with room for at least `size` rows, and for twice as many as it had."""
    if size <= len(array):
        return array
    larger = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def _first_equal(rows: IntArray, hashes: _Hashes) -> IntArray:
    """For each row, the first that equals it, shape (n,)."""
    order = np.argsort(hashes, kind="stable")
    head = np.ones(len(rows), dtype=bool)
    head[1:] = hashes[order[1:]] != hashes[order[:-1]]
    owner = np.empty(len(rows), dtype=np.int64)
    owner[order] = order[head][np.cumsum(head) - 1]
    repeats = np.flatnonzero(owner != np.arange(len(rows)))
    if (rows[repeats] != rows[owner[repeats]]).any():  # different rows with one hash
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        owner = first[inverse.ravel()]
    return owner
