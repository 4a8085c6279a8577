"""Workers as coroutines over one list: every order of their steps, deaths included, ends in the same accounts."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nas.genotype import Genotype
from nas.search.ledger import TRIES, Entry, Ledger, Watch


class Simulated:
    """A study in memory, its steps atomic as a storage's are, and workers that may stop between any two of them."""

    def __init__(self, total: int, genotypes: int, rng: random.Random, poison: frozenset[Genotype]) -> None:
        self.entries: list[Entry] = []
        self.total, self.genotypes, self.rng, self.poison = total, genotypes, rng, poison
        self.trained = Counter[Genotype]()

    def read(self) -> Ledger:
        return Ledger(tuple(self.entries), self.total)

    def change(self, number: int, **fields: object) -> bool:
        if self.entries[number].finished:
            return False
        self.entries[number] = replace(self.entries[number], **fields)  # type: ignore[arg-type]
        return True

    def tend(self, dead: set[int]) -> Iterator[None]:
        for number in [e.number for e in self.read().worked if e.number in dead]:
            yield
            self.change(number, state="failed")
        orphans = self.read().orphans
        for entry in orphans:
            yield
            self.entries.append(Entry(len(self.entries), "waiting", entry.origin, entry.genotype))
        for entry in self.read().copies:
            yield
            answer = self.read().answer(entry.genotype)  # type: ignore[arg-type]
            self.change(
                entry.number, state="complete" if answer else "failed", metrics=answer.metrics if answer else {}
            )

    def worker(self, holds: list[int | None], dead: set[int]) -> Iterator[None]:
        while True:
            yield from self.tend(dead)
            yield
            ledger = self.read()
            if ledger.done:
                return
            if ledger.waiting:
                number = ledger.waiting.number
                yield
                if self.entries[number].state != "waiting":
                    continue
                self.change(number, state="running")
            elif ledger.room:
                yield
                number = len(self.entries)
                self.entries.append(Entry(number, "running", number))
            else:
                continue
            holds[0] = number
            yield
            if self.read().entries[number].genotype is None and self.read().duty(number) == "wait":
                yield
                self.change(number, genotype=(self.rng.randrange(self.genotypes),))
            yield
            while (duty := self.read().duty(number)) == "wait":
                yield from self.tend(dead)
                yield
            yield
            if duty == "surplus":
                self.change(number, state="failed", void=True)
            elif duty == "train":
                genotype = self.entries[number].genotype
                assert genotype is not None
                yield
                self.trained[genotype] += 1
                yield
                bad = genotype in self.poison
                self.change(
                    number, **({"state": "failed"} if bad else {"state": "complete", "metrics": {"error": 0.5}})
                )
            holds[0] = None


def played(seed: int, total: int, genotypes: int, deaths: int, poison: frozenset[Genotype]) -> tuple[Simulated, int]:
    """Four workers in a random order; some die and are replaced by new ones. Gives also how many died in training."""
    rng = random.Random(seed)
    study, dead, lost = Simulated(total, genotypes, rng, poison), set[int](), 0
    crew = [(holds := [None], study.worker(holds, dead)) for _ in range(4)]
    for _ in range(200_000):
        if not crew:
            return study, lost
        place = rng.randrange(len(crew))
        holds, worker = crew[place]
        if deaths and rng.random() < 0.02:
            deaths -= 1
            if holds[0] is not None:
                dead.add(holds[0])
                lost += 1
            fresh: list[int | None] = [None]
            crew[place] = (fresh, study.worker(fresh, dead))
        elif next(worker, worker) is worker:
            crew.pop(place)
    raise AssertionError("the workers never ended")


@pytest.mark.parametrize("genotypes", [3, 12, 1000])
def test_without_deaths_all_trials_complete_and_no_genotype_is_trained_twice(genotypes: int) -> None:
    for seed in range(60):
        study, _ = played(seed, 12, genotypes, 0, frozenset())
        ledger = study.read()
        assert len(ledger.slots) == ledger.resolved == 12
        assert all(slot.state == "complete" for slot in ledger.slots)
        assert set(study.trained.values()) == {1}
        assert study.trained.keys() == ledger.results.keys() == {slot.genotype for slot in ledger.slots}
        assert not [e for e in ledger.entries if not e.finished]


@pytest.mark.parametrize("genotypes", [3, 12, 1000])
def test_whoever_dies_whenever_every_declared_genotype_ends_in_one_result(genotypes: int) -> None:
    repeated = 0
    for seed in range(100):
        study, lost = played(seed, 12, genotypes, TRIES - 1, frozenset())
        ledger = study.read()
        assert ledger.done
        assert len(ledger.slots) == 12
        assert ledger.results.keys() == {e.genotype for e in ledger.entries if e.genotype is not None}
        results = Counter(e.origin for e in ledger.entries if e.state == "complete")
        assert all(results[slot.origin] == 1 for slot in ledger.slots)
        assert not ledger.lost
        assert sum(study.trained.values()) - len(study.trained) <= lost
        repeated += any(e.origin != e.number for e in ledger.entries)
    assert repeated > 20


def test_a_genotype_that_always_fails_is_given_up_and_the_others_are_trained() -> None:
    for seed in range(40):
        study, _ = played(seed, 12, 5, 0, frozenset([(0,)]))
        ledger = study.read()
        assert ledger.done
        assert study.trained[(0,)] in (0, TRIES)
        assert ledger.lost == ([(0,)] if study.trained[(0,)] else [])
        assert {g for g in study.trained if g != (0,)} == ledger.results.keys()


def test_a_larger_total_goes_on_from_a_finished_study() -> None:
    study, _ = played(1, 6, 1000, 2, frozenset())
    before = study.read()
    assert before.done
    study.total = 9
    after = study.read()
    assert after.slots[:6] == before.slots
    assert after.room
    assert not after.done


def test_death_is_told_by_silence_while_one_looked_and_not_by_the_hour() -> None:
    now = 1e6
    watch = Watch(lambda: now)

    def ledger(beats: int) -> Ledger:
        return Ledger((Entry(0, "running", 0, (1,), beats=beats, within_s=10.0),), 1)

    assert watch.dead(ledger(7)) == []  # however long it was silent before
    now += 9
    assert watch.dead(ledger(7)) == []
    now += 2
    assert [e.number for e in watch.dead(ledger(7))] == [0]
    assert watch.dead(ledger(8)) == []  # it was paused
    now += 11
    assert watch.dead(ledger(9)) == []
    copy = (Entry(0, "complete", 0, (1,)), Entry(1, "running", 1, (1,), within_s=1.0))
    watch.dead(Ledger(copy, 2))
    now += 100
    assert watch.dead(Ledger(copy, 2)) == []  # nobody works on a copy
