"""The arrows between the packages, and the homes of third-party modules, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ARROWS = {
    "nas": set(),
    "supernet": {"nas"},
    "predictors": {"nas"},
    "hw_models": {"nas"},
    "fpga": {"nas", "hw_models"},
    "experiments": {"nas", "supernet", "predictors", "hw_models", "fpga"},
}

HOMES = {
    "numpy": ("",),
    "torch": ("supernet/", "predictors/neural.py", "hw_models/torch_", "hw_models/executorch_engine.py"),
    "scipy": ("predictors/", "fpga/folding.py"),
    "threadpoolctl": ("experiments/bench/speed.py", "experiments/bench/hybrid.py"),
    "sklearn": ("supernet/data/digits.py", "predictors/"),
    "PIL": ("supernet/data/decode.py",),
    "h5py": ("supernet/data/hdf5.py",),
    "optuna": ("nas/search/optuna_", "experiments/bench/peers.py"),
    "sqlalchemy": ("nas/search/optuna_storage.py",),
    "pymoo": ("experiments/bench/peers.py",),
    "ortools": ("nas/search/cp_sat.py",),
    "highspy": ("nas/search/highs.py",),
    "onnx": ("hw_models/onnx_model.py", "hw_models/quantized_onnx.py", "hw_models/torch_engine.py"),
    "onnxruntime": ("hw_models/onnx_runtime.py",),
    "openvino": ("hw_models/openvino_engine.py",),
    "executorch": ("hw_models/executorch_engine.py",),
    "hls4ml": ("fpga/",),
    "da4ml": ("fpga/",),
    "matplotlib": ("experiments/report/figures.py", "experiments/bench/figures.py"),
    "jinja2": ("experiments/report/page.py",),
    "pandas": ("experiments/",),
    "pydantic": ("experiments/",),
    "pydantic_core": ("experiments/",),
    "typer": ("experiments/",),
    "rich": ("experiments/",),
    "yaml": ("experiments/", "hw_models/device.py"),
}
"""Where each third-party module may be imported: a folder, or the one file that wraps it."""


def imports(source: str) -> Iterator[str]:
    """Top-level names of all modules a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").split(".")[0]


def fault(path: str, module: str) -> str | None:
    """What is wrong with a file importing a module."""
    package = path.split("/")[0]
    if module == ".":
        return f"{path}: relative imports hide arrows; write the full name"
    if module == package or module in sys.stdlib_module_names:
        return None
    if module in ARROWS:
        return None if module in ARROWS[package] else f"{path}: {package} must not import {module}"
    if any(path.startswith(home) for home in HOMES.get(module, ())):
        return None
    return f"{path}: {module} may be imported in {', '.join(HOMES.get(module, ())) or 'no file'}"


def sources() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for package in ARROWS for path in (ROOT / package).rglob("*.py"))


def test_only_drawn_arrows() -> None:
    paths = sources()
    assert {path.split("/")[0] for path in paths} == set(ARROWS)
    faults = [fault(path, module) for path in paths for module in imports((ROOT / path).read_text(encoding="utf-8"))]
    assert [found for found in faults if found] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nas/search/evolution.py", "import supernet.train"),
        ("predictors/ridge.py", "def f():\n    from hw_models import cost"),
        ("fpga/hls.py", "from predictors.ridge import Ridge"),
        ("nas/network.py", "import torch"),
        ("nas/search/evolution.py", "import optuna.samplers as s"),
        ("experiments/cli.py", "import matplotlib.pyplot"),
        ("nas/network.py", "import requests"),
        ("nas/network.py", "from . import genotype"),
    ],
)
def test_a_wrong_arrow_is_found(path: str, source: str) -> None:
    assert all(fault(path, module) for module in imports(source))


HEAVY = {"torch", "sklearn", "h5py", "PIL", "optuna", "ortools", "highspy", "pymoo", "onnx", "hls4ml", "matplotlib"}


@pytest.mark.parametrize(
    "reads",
    [
        "import nas.search, nas.spaces, supernet.data, supernet.settings, experiments.bench",
        "import pathlib, experiments.config as c, experiments.targets as t; "
        "config = c.load_config(pathlib.Path('experiments/configs/fashion.yaml')); "
        "t.require_operations(config.devices, config.build_space())",
    ],
    ids=["registries", "what `nas check` reads"],
)
def test_settings_are_read_without_the_engines(reads: str) -> None:
    """Torch, the solvers and the rest take seconds to import."""
    code = f"import sys; {reads}; print(sorted({HEAVY!r} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
