"""A search that scores subnets of its front and learns from them."""

from pathlib import Path

import numpy as np
import pytest
from tiny_runs import MARKS, Edit, Finished, device_search, tiny_config

from experiments.context import Context
from experiments.plan import plan
from experiments.problems import problem
from experiments.rundir import read_lines
from experiments.stages.active import Found, learning
from experiments.stages.fit import ACCURACY
from experiments.stages.sample import evaluated, load_samples
from experiments.stages.search import _search_once, load_finalists
from nas.errors import NasError
from nas.genotype import IntArray
from nas.search.active import expected_improvement
from nas.search.archive import Archive
from predictors import accuracy
from predictors.accuracy import AccuracyPredictor
from supernet.calibrate import Calibrations
from supernet.evaluate import errors

pytestmark = MARKS

DEVICE = "zu3eg"
LOG = "samples.jsonl"


def asking(evaluations: int, batch: int) -> Edit:
    return lambda entries: entries["search"].update(evaluations=evaluations, batch=batch)


def context_of(finished: Finished, evaluations: int, batch: int) -> Context:
    return Context(tiny_config(asking(evaluations, batch)), finished.runs)


def test_it_learns_the_errors_of_its_front(finished: Finished, tmp_path: Path) -> None:
    """Each subnet once, none the predictor knew, with the error that the supernet has alone."""
    context = context_of(finished, 10, 4)
    summary = device_search(context, tmp_path, DEVICE)
    scored, at = load_samples(tmp_path / DEVICE), context.run.stage_dir
    assert summary["evaluations"] == len(scored.errors) == 10
    assert len(summary["rmse_by_batch"]) == 3
    known = load_samples(at(plan(context.config).sample)).genotypes
    assert len(np.unique(np.concatenate([known, scored.genotypes]), axis=0)) == len(known) + 10
    training = context.trained(at(plan(context.config).train))
    for genotype, error in zip(scored.genotypes.tolist(), scored.errors, strict=True):
        alone = Calibrations(training.supernet, [context.space.lower(genotype)], training.calibration_images)
        assert errors(alone, context.data.validation) == [error]


def test_the_search_is_that_of_a_predictor_taught_all_samples(finished: Finished, tmp_path: Path) -> None:
    context = context_of(finished, 8, 8)
    device_search(context, tmp_path, DEVICE)
    scored, before = load_samples(tmp_path / DEVICE), load_samples(context.run.stage_dir(plan(context.config).sample))
    taught = accuracy.load(context.space, context.run.stage_dir(plan(context.config).fit) / ACCURACY).taught(
        scored.genotypes, scored.errors
    )
    assert np.array_equal(taught.samples, np.concatenate([before.genotypes, scored.genotypes]))
    assert np.array_equal(taught.errors, np.concatenate([before.errors, scored.errors]))
    finalists = load_finalists(tmp_path / DEVICE)
    found = np.array([finalist["genotype"] for finalist in finalists])
    predicted = [finalist["predicted"]["error"] for finalist in finalists]
    assert taught.mean(found) == pytest.approx(predicted)


def test_the_first_of_a_batch_promises_the_most_of_the_first_front(finished: Finished, tmp_path: Path) -> None:
    """Brute force over the front that a search without evaluations finds."""
    plain, context = context_of(finished, 0, 4), context_of(finished, 4, 4)
    device_search(plain, tmp_path / "plain", DEVICE)
    device_search(context, tmp_path / "active", DEVICE)
    with np.load(tmp_path / "plain" / DEVICE / "candidates.npz") as arrays:
        genotypes, metrics, names = arrays["genotypes"], arrays["metrics"], arrays["names"].tolist()
        front = arrays["front"]
    stages = plan(context.config)
    predictor = accuracy.load(context.space, context.run.stage_dir(stages.fit) / ACCURACY)
    columns = [names.index(name) for name in ("error", "latency_s", "lut")]
    seen = {row.tobytes() for row in predictor.samples.astype(np.int16)}
    candidates = [place for place in front if genotypes[place].tobytes() not in seen]
    reached = metrics[front][:, columns]
    reference = reached.max(axis=0) + 0.1 * np.ptp(reached, axis=0)
    prediction = predictor.predict(genotypes[candidates])
    known = metrics[candidates][:, columns[1:]]
    first = load_samples(tmp_path / "active" / DEVICE).genotypes[0]
    asked = problem(context, stages.device(DEVICE).target, context.run.stage_dir(stages.fit), None)
    points = asked.evaluate(predictor.samples)
    points[:, asked.metrics.index("error")] = predictor.errors
    points = points[asked.violation(points) == 0][:, asked.columns(("error", "latency_s", "lut"))]
    gains = expected_improvement(prediction.mean, prediction.std, known, points, reference)
    assert genotypes[candidates[int(np.argmax(gains))]].tolist() == first.tolist()


def test_a_search_begins_with_the_networks_scored_last(finished: Finished, tmp_path: Path) -> None:
    """Each search is handed those of the batch before it, and evaluates them whatever its sampler finds."""
    context = context_of(finished, 8, 4)
    stages, at = plan(context.config), context.run.stage_dir
    begun, archives = list[IntArray](), list[Archive]()

    def once(errors: AccuracyPredictor, starts: IntArray) -> Found:
        found = _search_once(context, stages.device(DEVICE).target, None, errors, starts)
        begun.append(starts)
        archives.append(found.archive)
        return found

    learned = learning(context, at(stages.train), at(stages.fit), tmp_path, once)
    scored = load_samples(tmp_path).genotypes
    assert learned.evaluations == len(scored) == 8
    assert np.array_equal(np.concatenate(begun), scored)
    assert [len(starts) for starts in begun] == [0, 4, 4]
    for starts, archive in zip(begun[1:], archives[1:], strict=True):
        given = {row.tobytes() for row in starts.astype(archive.genotypes.dtype)}
        named = zip(archive.genotypes, archive.found_by, strict=True)
        assert given <= {row.tobytes() for row, found_by in named if found_by == "start"}


def test_an_interrupted_search_scores_nothing_twice(finished: Finished, tmp_path: Path) -> None:
    context = context_of(finished, 8, 4)
    device_search(context, tmp_path / "whole", DEVICE)
    lines = (tmp_path / "whole" / DEVICE / LOG).read_text().splitlines(keepends=True)
    resumed = tmp_path / "resumed" / DEVICE
    resumed.mkdir(parents=True)
    (resumed / LOG).write_text("".join(lines[:5]) + lines[5][:7])  # killed in the middle of a line
    device_search(context, tmp_path / "resumed", DEVICE)
    assert load_finalists(resumed) == load_finalists(tmp_path / "whole" / DEVICE)
    assert len(read_lines(resumed / LOG)) == 8
    assert (resumed / LOG).read_text().startswith("".join(lines[:5]))


def test_a_log_of_other_subnets_is_not_taken_for_theirs(finished: Finished, tmp_path: Path) -> None:
    """As where a search went on on a machine that rounds otherwise, and chose others."""
    context = context_of(finished, 4, 4)
    train_folder = context.run.stage_dir(plan(context.config).train)
    both = load_samples(context.run.stage_dir(plan(context.config).sample))
    here, there = both.genotypes[:3], both.genotypes[[0, 4, 5]]
    for wanted, places in ((here, [0, 1, 2]), (there, [0, 4, 5]), (here, [0, 1, 2])):
        found = evaluated(context, train_folder, wanted, tmp_path, "score")
        assert found == pytest.approx(both.errors[places])
    assert len(read_lines(tmp_path / LOG)) == 3 + 2 + 2


def test_too_many_objectives_to_weigh_are_told_in_the_config() -> None:
    def edit(entries: dict[str, object]) -> None:
        asking(8, 4)(entries)
        entries["devices"] = [{"name": DEVICE, "objectives": ["error", "latency_s", "lut", "ff", "weight_bytes"]}]

    with pytest.raises(
        NasError, match=r"search\.evaluations: .*at most 3 other objectives; zu3eg has error, latency_s"
    ):
        tiny_config(edit)
