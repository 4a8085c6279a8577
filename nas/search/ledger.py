"""Who trains what, of workers that share a list of trials and nothing else.

Trials are created in one order that all workers see; a state once `complete` or `failed` stays. Everything else follows
from the list, so no worker leads and any of them can be killed at any time:

- A worker creates a trial, then declares its genotype. It decides what to do with it only once every running trial
  before it has declared, so two workers never train one genotype (take a number and wait: Lamport's bakery, 1974).
- The first trial that declares a genotype trains it. Later ones are its copies: they get its result.
- A trial whose worker died fails and is queued again as a new trial with the same origin and genotype.
- A trial that failed before it declared anything never was.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from nas.genotype import Genotype

TrialState = Literal["waiting", "running", "complete", "failed"]
Duty = Literal["wait", "surplus", "copy", "train"]

TRIES = 3
"""Failures after which a genotype is given up; one that kills its workers must not kill all of them."""


@dataclass(frozen=True)
class Entry:
    """One trial.

    Attributes:
        number: Its place in the list.
        state: As in the storage.
        origin: Number of the trial it repeats, its own unless it was queued again.
        genotype: Canonical; None until declared.
        metrics: By name, once complete.
        beats: Signs of life of its worker.
        within_s: Its worker promised a sign of life at least that often.
        void: Its failure says nothing about the genotype.
    """

    number: int
    state: TrialState
    origin: int
    genotype: Genotype | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    beats: int = 0
    within_s: float = 60.0
    void: bool = False

    @property
    def finished(self) -> bool:
        return self.state in ("complete", "failed")


@dataclass(frozen=True)
class Ledger:
    """All trials of a study, in order, and how many it is to have."""

    entries: Sequence[Entry]
    total: int

    @cached_property
    def slots(self) -> tuple[Entry, ...]:
        """The trials that count, at most `total`; each ends in a result, its own or that of its repetitions."""
        first = [e for e in self.entries if e.origin == e.number and not (e.state == "failed" and e.genotype is None)]
        return tuple(first[: self.total])

    @cached_property
    def _chains(self) -> Mapping[int, list[Entry]]:
        chains = defaultdict[int, list[Entry]](list)
        for entry in self.entries:
            chains[entry.origin].append(entry)
        return chains

    @cached_property
    def _roots(self) -> Mapping[Genotype, int]:
        """The origin that answers for each genotype."""
        roots: dict[Genotype, int] = {}
        for entry in self.entries:
            if entry.genotype is not None:
                roots.setdefault(entry.genotype, entry.origin)
        return roots

    def _chain(self, genotype: Genotype) -> list[Entry]:
        return self._chains[self._roots[genotype]]

    def answer(self, genotype: Genotype) -> Entry | None:
        """The trial that trained a declared genotype."""
        return next((e for e in self._chain(genotype) if e.state == "complete"), None)

    def given_up(self, genotype: Genotype) -> bool:
        """True where training a declared genotype failed too often."""
        failures = sum(e.state == "failed" and not e.void for e in self._chain(genotype))
        return failures >= TRIES and self.answer(genotype) is None

    def _copies(self, entry: Entry) -> bool:
        return entry.genotype is not None and self._roots[entry.genotype] != entry.origin

    def duty(self, number: int) -> Duty:
        """What the worker that holds a running trial is to do with it."""
        entry = self.entries[number]
        if entry.genotype is None:
            return "wait" if entry in self.slots else "surplus"
        if any(e.state == "running" and e.genotype is None for e in self.entries[:number]):
            return "wait"
        if self._repeated(entry):
            return "surplus"
        if self._copies(entry):
            return "copy"
        return "surplus" if self._resolved(entry.genotype) else "train"

    def _repeated(self, entry: Entry) -> bool:
        """True where an earlier trial of the same origin stands: two workers queued it again at once."""
        return any(e.number < entry.number and e.state != "failed" for e in self._chains[entry.origin])

    @property
    def waiting(self) -> Entry | None:
        """The next trial to be taken up again."""
        return next((e for e in self.entries if e.state == "waiting"), None)

    @property
    def worked(self) -> list[Entry]:
        """Running trials that a living worker must hold; a copy needs none."""
        return [e for e in self.entries if e.state == "running" and (self._repeated(e) or not self._copies(e))]

    @property
    def copies(self) -> list[Entry]:
        """Running copies whose genotype is trained or given up."""
        running = (e for e in self.entries if e.state == "running" and self._copies(e) and not self._repeated(e))
        return [e for e in running if e.genotype is not None and self._resolved(e.genotype)]

    @property
    def orphans(self) -> list[Entry]:
        """The last trial of each origin that failed and is to be queued again."""
        chains = [
            self._chains[s.origin] for s in self.slots if s.genotype is not None and not self.given_up(s.genotype)
        ]
        return [chain[-1] for chain in chains if all(e.state == "failed" for e in chain)]

    def _resolved(self, genotype: Genotype) -> bool:
        return self.answer(genotype) is not None or self.given_up(genotype)

    @property
    def room(self) -> bool:
        """True where a new trial is wanted."""
        return len(self.slots) < self.total

    @property
    def results(self) -> dict[Genotype, Entry]:
        """The trial that trained each genotype, in the order of declaration; copies left out."""
        answers = {genotype: self.answer(genotype) for genotype in self._roots}
        return {genotype: answer for genotype, answer in answers.items() if answer is not None}

    @property
    def lost(self) -> list[Genotype]:
        """The genotypes that were given up."""
        return [genotype for genotype in self._roots if self.given_up(genotype)]

    @property
    def resolved(self) -> int:
        """How many of the trials have a result or were given up."""
        return sum(slot.genotype is not None and self._resolved(slot.genotype) for slot in self.slots)

    @property
    def done(self) -> bool:
        """True where nothing is left to do, for any worker."""
        return self.resolved == self.total and not (self.copies or self.orphans or self.waiting)


@dataclass
class Watch:
    """Tells which workers died, by one's own clock alone: machines need not agree on the time."""

    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def dead(self, ledger: Ledger) -> list[Entry]:
        """Trials whose worker has given no sign of life for as long as it promised one, while this one looked."""
        now, before = self.clock(), self._seen
        self._seen = {}
        for entry in ledger.worked:
            beats, since = before.get(entry.number, (entry.beats, now))
            self._seen[entry.number] = (entry.beats, since if beats == entry.beats else now)
        return [e for e in ledger.worked if now - self._seen[e.number][1] > e.within_s]
