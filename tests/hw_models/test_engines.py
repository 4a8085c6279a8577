import dataclasses
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hw_models import onnx_runtime
from hw_models.engines import DEFAULT, ENGINES, REQUIREMENTS, load_engine
from hw_models.machine import Engine
from hw_models.measure import fingerprint, measure
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from hw_models.runner import percentile
from hw_models.store import MeasurementStore
from nas.design import Design
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.network import Add, Conv2d, Input, Linear, Mean, Network, PairSum, Pool, RowMean, Scale

SLOW = {"executorch": pytest.mark.slow}
"""It takes seconds to import, and to lower a model."""
OTHERS = [pytest.param(name, marks=SLOW.get(name, ())) for name in ENGINES if name != DEFAULT]
Draw = Callable[[SearchSpace, int], list[Network]]

EVERY_OPERATION = Network(
    (
        Input("input", (3, 11, 9)),
        Conv2d("stem", ("input",), (3, 11, 9), (8, 6, 5), 3, stride=2, activation="hswish"),
        Pool("pool", ("stem",), (8, 6, 5), 3, 1, "max"),
        Conv2d("depthwise", ("pool",), (8, 6, 5), (8, 6, 5), 5, groups=8, activation="relu"),
        Mean("squeeze", ("depthwise",), (8, 6, 5)),
        Linear("gates", ("squeeze",), (8,), (8,), activation="hsigmoid"),
        Scale("scale", ("depthwise", "gates"), (8, 6, 5)),
        Conv2d("project", ("scale",), (8, 6, 5), (8, 6, 5), 1),
        Add("add", ("pool", "project"), (8, 6, 5), activation="relu"),
        Pool("means", ("add",), (8, 6, 5), 3, 2, "mean"),
        Mean("mean", ("means",), (8, 3, 3)),
        Linear("head", ("mean",), (8,), (10,)),
    )
)
PAIRS = Network(
    (
        Input("input", (3, 5, 1)),
        Conv2d("receiver", ("input",), (3, 5, 1), (8, 5, 1), 1),
        Conv2d("sender", ("input",), (3, 5, 1), (8, 5, 1), 1),
        PairSum("pairs", ("receiver", "sender"), (8, 5, 1), activation="relu"),
        RowMean("rows", ("pairs",), (8, 5, 5)),
        Mean("mean", ("rows",), (8, 5, 1)),
        Linear("head", ("mean",), (8,), (10,)),
    )
)


@pytest.fixture(params=OTHERS)
def engine(request: pytest.FixtureRequest, installed_engine: Callable[[str], Engine]) -> Engine:
    return installed_engine(request.param)


def test_every_engine_has_a_requirement() -> None:
    assert REQUIREMENTS.keys() == ENGINES.keys()


@pytest.mark.parametrize(("network", "count"), [(EVERY_OPERATION, 1), (EVERY_OPERATION, 7), (PAIRS, 1)])
def test_every_operation_gives_the_same_logits(engine: Engine, network: Network, count: int) -> None:
    images = np.random.default_rng(0).normal(size=(count, *network.input.out_shape))
    model = to_onnx(random_design(network, 0))
    expected = onnx_runtime.predict(model, images)
    assert np.abs(expected).max() > 0.1
    close = 0.01 if engine.NAME.endswith("fp16") else 1e-4
    np.testing.assert_allclose(engine.predict(model, images), expected, atol=close)


@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
@pytest.mark.parametrize("bits", [(32,), (4,), (3, 4, 5, 8, 12, 32)], ids=str)
def test_weights_in_few_bits_give_the_same_logits(
    bits: tuple[int, ...],
    engine: Engine,
    mobile: SearchSpace,
    architectures: Draw,
    with_weight_bits: Callable[[Network, tuple[int, ...]], Network],
    weight_only_design: Callable[[Network, int], Design],
) -> None:
    images = np.random.default_rng(1).normal(size=(4, 1, 8, 8))
    for network in architectures(mobile, 2):
        model = to_onnx(weight_only_design(with_weight_bits(network, bits), 0))
        expected = onnx_runtime.predict(model, images)
        np.testing.assert_allclose(engine.predict(model, images), expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_images_of_another_size_are_refused(engine: Engine) -> None:
    """Also where their values would fill the model's input."""
    with pytest.raises(NasError, match=r"\(3, 3, 9, 22\).*reads \(n, 3, 11, 9\)"):
        engine.predict(to_onnx(random_design(EVERY_OPERATION, 0)), np.zeros((3, 3, 9, 22)))


@pytest.mark.parametrize(
    "engine", ["torch", "torch-cuda", pytest.param("executorch", marks=SLOW["executorch"])], indirect=True
)
def test_torch_runs_float_models_only(
    engine: Engine,
    with_weight_bits: Callable[[Network, tuple[int, ...]], Network],
    weight_only_design: Callable[[Network, int], Design],
) -> None:
    model = to_onnx(weight_only_design(with_weight_bits(EVERY_OPERATION, (4,)), 0))
    with pytest.raises(NasError, match=r"engines torch, .* run float models, not DequantizeLinear"):
        engine.predict(model, np.zeros((1, 3, 11, 9)))


@pytest.mark.slow
def test_executorch_lowers_a_model_once(installed_engine: Callable[[str], Engine]) -> None:
    engine, model = installed_engine("executorch"), to_onnx(random_design(EVERY_OPERATION, 0))
    engine.repeated_call(model)
    seconds = timeit.repeat(lambda: engine.repeated_call(model), number=1, repeat=3)
    assert min(seconds) < 0.1


def test_a_model_that_openvino_does_not_read_is_an_error_with_the_reason(
    with_weight_bits: Callable[[Network, tuple[int, ...]], Network],
    weight_only_design: Callable[[Network, int], Design],
) -> None:
    pytest.importorskip("openvino")
    network = with_weight_bits(EVERY_OPERATION, (2,))
    with pytest.raises(NasError, match=r"engine openvino: cannot read this model .*INT2"):
        load_engine("openvino").predict(to_onnx(weight_only_design(network, 0)), np.zeros((1, 3, 11, 9)))


def test_a_process_with_models_that_came_and_went_lives_on_after_a_signal(tmp_path: Path) -> None:
    """Two of the same time, gone in the order they came; a fault handler gives the thread a stack for signals."""
    pytest.importorskip("openvino")
    model = tmp_path / "model.onnx"
    model.write_bytes(to_onnx(random_design(EVERY_OPERATION, 0)))
    code = (
        "import faulthandler, os, signal, sys\n"
        "from pathlib import Path\n"
        "from hw_models.engines import load_engine\n"
        "faulthandler.enable()\n"
        "compiled = load_engine('openvino').compiled\n"
        "models = [compiled(Path(sys.argv[1]).read_bytes(), batch) for batch in (1, 2)]\n"
        "while models:\n"
        "    del models[0]\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, model], check=False).returncode == 0


def test_engines_never_mix_in_the_store(engine: Engine, tmp_path: Path) -> None:
    store, models = MeasurementStore(tmp_path / "m.jsonl"), {"a": to_onnx(random_design(EVERY_OPERATION, 0))}
    ours, theirs = (measure(models, 3, 2, engine=name) for name in (DEFAULT, engine.NAME))
    assert ours.fingerprint == fingerprint()
    assert theirs.fingerprint == fingerprint(engine=engine.NAME)
    assert f"{engine.NAME} {engine.VERSION}" in theirs.fingerprint
    assert theirs.versions[engine.NAME] == engine.VERSION
    for campaign in (ours, dataclasses.replace(theirs, latency_s={"b": 1.0})):
        store.append(campaign)
    assert store.lookup(["a", "b"], ours.fingerprint).keys() == {"a"}
    assert store.lookup(["a", "b"], theirs.fingerprint).keys() == {"b"}


def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hw_models.openvino_engine", raising=False)
    monkeypatch.delattr("hw_models.openvino_engine", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        NasError, match=r"engine openvino: is not installed .*pip install 'openvino>=.*hwnas\[openvino\]"
    ):
        load_engine("openvino")
    with pytest.raises(NasError, match="engine 'tvm' is unknown; known are onnxruntime"):
        load_engine("tvm")


def test_the_harness_computes_the_percentile_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 11, 97):
        values = rng.normal(size=count)
        for percent in (0, 10, 37.5, 90, 100):
            assert percentile(values.tolist(), percent) == pytest.approx(np.percentile(values, percent), abs=1e-12)
