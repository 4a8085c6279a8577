"""An Optuna study that workers on any number of machines share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import NasError
from nas.problem import Problem
from nas.search.ledger import Entry, Ledger, TrialState
from nas.search.optuna_storage import open_storage, reached
from nas.search.optuna_study import SamplerName, build_sampler, excesses, parameters, quiet, suggested

if TYPE_CHECKING:
    import optuna

TRIALS = 100
"""Trials of a study of which nobody said how many."""


class SharedStudy:
    """A study in a storage that workers share; a trial is its genotype, one attribute, and its metrics.

    What to do about each trial, the `Ledger` tells. The trials have no parameters: a worker that wants a candidate
    asks a study in its own memory, filled with what is known so far, under a seed of the trial's own.
    """

    def __init__(
        self, url: str, name: str, problem: Problem, sampler: SamplerName, seed: int, trials: int | None = None
    ) -> None:
        """Open the study, or create it.

        Args:
            url: `journal://PATH`, `grpc://HOST:PORT` or `postgresql://USER@HOST/DATABASE`.
            name: Of the study in the storage.
            problem: What is asked; `evaluate` is not called.
            sampler: Who suggests candidates.
            seed: Of the suggestions, each with its trial's number.
            trials: How many the study is to have, for all workers; None for what it has, or `TRIALS`.

        Raises:
            NasError: The storage cannot be reached, its driver is missing, or the study has more trials already.
        """
        self.url, self.problem, self.sampler, self.seed = url, problem, sampler, seed
        self.worker = f"{socket.gethostname()}-{os.getpid()}"
        self._storage = open_storage(url)
        with reached(self.url):
            _create(self._storage, name, len(problem.objectives))
            self._id = self._storage.get_study_id_from_name(name)
            known = self._total()
            if trials is not None and known is not None and trials < known:
                raise NasError(
                    f"study {name} is to have {known} trials already; ask for that many or more, not {trials}"
                )
            if known is None or (trials or 0) > known:
                self._storage.set_study_user_attr(self._id, "trials", trials or TRIALS)

    def read(self) -> Ledger:
        """All trials as they are now."""
        with reached(self.url):
            return Ledger(sorted(map(_entry, self.trials()), key=lambda entry: entry.number), self._total() or TRIALS)

    def create(self, within_s: float) -> int:
        """A new running trial without a genotype; gives its number."""
        return self._create("RUNNING", {"beat": [0, within_s], "worker": self.worker}, {})

    def requeue(self, entry: Entry) -> None:
        """A new waiting trial of the same genotype, marked as Optuna's own retries are."""
        history = [e.number for e in self.read().entries if e.origin == entry.origin]
        assert entry.genotype is not None
        self._create("WAITING", {"genotype": entry.genotype}, {"failed_trial": entry.origin, "retry_history": history})

    def claim(self, number: int, within_s: float) -> bool:
        """Take a waiting trial; False where another worker was first."""
        if not self._move(number, "RUNNING"):
            return False
        with reached(self.url):
            self._storage.set_trial_user_attr(self._trial_id(number), "worker", self.worker)
        self.beat(number, 1, within_s)
        return True

    def declare(self, number: int) -> None:
        """Choose the genotype of a running trial; nothing happens where it was finished meanwhile."""
        with reached(self.url), quiet(), _unless_finished():
            own = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
            inner = self._filled(build_sampler(self.sampler, int(own)))
            genotype = suggested(inner.ask(), self.problem)[0].tolist()
            for key, value in inner.get_trials()[-1].system_attrs.items():
                self._storage.set_trial_system_attr(self._trial_id(number), key, value)
            self._storage.set_trial_user_attr(self._trial_id(number), "genotype", genotype)

    def beat(self, number: int, count: int, within_s: float) -> None:
        """Give a sign of life, and promise the next; nothing happens where the trial was finished meanwhile."""
        with reached(self.url), _unless_finished():
            self._storage.set_trial_user_attr(self._trial_id(number), "beat", [count, within_s])

    def finish(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Complete a running trial; False where it was finished meanwhile: its worker had seemed dead."""
        row = np.array([metrics[name] for name in self.problem.metrics])
        with reached(self.url), quiet(), _unless_finished():
            import optuna

            trial_id = self._trial_id(number)
            self._storage.set_trial_user_attr(trial_id, "metrics", dict(metrics))
            limited = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, constraints=excesses(self.problem, row)
            )
            for key, value in limited.system_attrs.items():
                self._storage.set_trial_system_attr(trial_id, key, value)
            return self._move(number, "COMPLETE", self.problem.costs(row[None])[0].tolist())
        return False

    def fail(self, number: int, void: bool = False, reason: str = "") -> bool:
        """Fail a trial; False where it was finished meanwhile. A void failure says nothing about the genotype."""
        said = {"void": void, "reason": reason}
        with reached(self.url), _unless_finished():
            for key in (key for key in said if said[key]):
                self._storage.set_trial_user_attr(self._trial_id(number), key, said[key])
            return self._move(number, "FAIL")
        return False

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials as Optuna has them."""
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _total(self) -> int | None:
        total: int | None = self._storage.get_study_user_attrs(self._id).get("trials")
        return total

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _create(self, state: str, user: dict[str, Any], system: dict[str, Any]) -> int:
        """One write: others see the trial whole."""
        import optuna

        with reached(self.url):
            template = optuna.trial.create_trial(
                state=optuna.trial.TrialState[state], user_attrs=user, system_attrs=system
            )
            return self._storage.get_trial_number_from_id(self._storage.create_new_trial(self._id, template))

    def _move(self, number: int, state: str, values: Sequence[float] | None = None) -> bool:
        import optuna

        with reached(self.url), _unless_finished():
            states = optuna.trial.TrialState
            return self._storage.set_trial_state_values(self._trial_id(number), states[state], values)
        return False

    def _filled(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """A study in memory with all that is known: what is trained, and what is being trained."""
        import optuna

        states = optuna.trial.TrialState
        inner = optuna.create_study(directions=["minimize"] * len(self.problem.objectives), sampler=sampler)
        choices: dict[str, optuna.distributions.BaseDistribution] = {
            gene.name: optuna.distributions.CategoricalDistribution(list(range(len(allowed))))
            for gene, allowed in zip(self.problem.space.genes, self.problem.allowed, strict=True)
        }
        for trial in self.trials():
            if trial.state in (states.COMPLETE, states.RUNNING) and "genotype" in trial.user_attrs:
                ranks = parameters(self.problem, np.array(trial.user_attrs["genotype"]))
                inner.add_trial(
                    optuna.trial.create_trial(
                        state=trial.state,
                        values=trial.values,
                        params=ranks,
                        distributions=choices,
                        system_attrs=trial.system_attrs,
                    )
                )
        return inner


_STATES: Mapping[str, TrialState] = {
    "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "FAIL": "failed", "PRUNED": "failed",
}  # fmt: skip


def _entry(trial: optuna.trial.FrozenTrial) -> Entry:
    said, genotype = trial.user_attrs, trial.user_attrs.get("genotype")
    beats, within_s = said.get("beat", (0, Entry.within_s))
    return Entry(
        number=trial.number,
        state=_STATES[trial.state.name],
        origin=trial.system_attrs.get("failed_trial", trial.number),
        genotype=None if genotype is None else tuple(genotype),
        metrics=said.get("metrics", {}),
        beats=beats,
        within_s=within_s,
        void=said.get("void", False),
    )


@contextmanager
def _unless_finished() -> Iterator[None]:
    import optuna

    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        yield


def _create(storage: optuna.storages.BaseStorage, name: str, objectives: int) -> None:
    """Make sure of the study; several workers may be its first."""
    import optuna

    with quiet():
        optuna.create_study(storage=storage, study_name=name, directions=["minimize"] * objectives, load_if_exists=True)
