import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

import hw_models
from hw_models.device import Resources, device_names, load_device, parse_device, unsupported_layers
from hw_models.families import METRICS
from hw_models.systolic import Systolic
from nas.errors import NasError
from nas.network import Add, Conv2d, Input, Linear, Mean, Network, Pool, Scale

FOLDER = Path(hw_models.__file__).parent / "devices"


@functools.cache
def loaded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return content


def entries(name: str) -> dict[str, Any]:
    return copy.deepcopy(loaded(name))


def numbers(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every number and the mapping it stands in."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in numbers(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for inner in value for found in numbers(inner, path)]
    return [(path, value)] if isinstance(value, int | float) else []


def at(content: dict[str, Any], path: str) -> dict[str, Any]:
    for key in path.strip(".").split(".")[:-1]:
        content = content[key]
    return content


def test_the_devices_are_these() -> None:
    assert device_names() == (
        "alveo-u250", "alveo-u250-rtl", "bitfusion", "edge-tpu", "eyeriss", "h200", "jetson-orin-nano", "local-cpu",
        "local-cpu-int8", "pynq-z2", "pynq-z2-folded", "raspberry-pi-4", "stm32f746", "xeon-gold-6226", "zcu102",
        "zu3eg", "zu3eg-folded",
    )  # fmt: skip


@pytest.mark.parametrize("name", device_names())
def test_every_number_has_a_source(name: str) -> None:
    content = entries(name)
    found = numbers(content)
    assert found or "like" in content
    for path, _ in found:
        assert path.endswith(".value")
        assert len(at(content, path)["source"]) > 20


@pytest.mark.parametrize("name", device_names())
def test_devices_load(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert set(device.objectives) <= set(device.metrics) <= set(METRICS[device.family])


def test_the_parts_have_what_the_issue_says() -> None:
    assert load_device("zu3eg").resources == Resources(lut=70560, ff=141120, dsp=360, bram=432)
    assert load_device("zcu102").resources == Resources(lut=274080, ff=548160, dsp=2520, bram=1824)
    assert load_device("pynq-z2").resources == Resources(lut=53200, ff=106400, dsp=220, bram=280)
    assert load_device("alveo-u250").resources == Resources(lut=1728000, ff=3456000, dsp=12288, bram=5376)
    assert load_device("zu3eg").clock_hz == 200e6
    assert load_device("local-cpu").act_bits == (32,)
    assert load_device("local-cpu").threads == 1


def test_a_device_that_is_like_another_has_what_its_file_lacks() -> None:
    board, folded = load_device("pynq-z2"), load_device("pynq-z2-folded")
    assert (folded.part, folded.clock_hz, folded.resources) == (board.part, board.clock_hz, board.resources)
    assert (folded.family, folded.schedule, folded.weight_bits) == ("folded-fpga", "pipelined", board.weight_bits)


def test_whom_a_device_is_like_must_be_known_and_its_own() -> None:
    content = entries("pynq-z2-folded")
    assert "like must name another device, got 'pynq'" in refused(content | {"like": "pynq"})
    assert "pynq-z2-folded has its entries from pynq-z2" in refused(content | {"like": "pynq-z2-folded"})
    assert "schedule must be one of pipelined, sequential" in refused(content | {"schedule": "twice"})
    assert "positions must be one of streamed, parallel" in refused(entries("alveo-u250-rtl") | {"positions": "both"})


def test_an_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(NasError, match="'zu3' is unknown; did you mean zu3eg"):
        load_device("zu3")
    with pytest.raises(NasError, match=f"known are {', '.join(device_names())}"):
        load_device("qqqq")


def refused(content: dict[str, Any]) -> str:
    with pytest.raises(NasError) as caught:
        parse_device("broken", yaml.safe_dump(content))
    return str(caught.value)


def test_each_missing_key_is_named() -> None:
    for name in device_names():
        liked = entries(entries(name)["like"]) if "like" in entries(name) else {}
        for key in entries(name).keys() - liked.keys() - {"sparse_macs_per_s", "positions"}:
            content = entries(name)
            del content[key]
            first = "weight_bits" if "family" in content else "family"  # the first that is missed without it
            assert {"energy": "energy_j", "like": first}.get(key, key) in refused(content)
    for key in ("lut", "ff", "dsp", "bram"):
        content = entries("zu3eg")
        del content["resources"][key]
        assert f"resources: {key} is missing" in refused(content)


def test_each_number_without_source_is_named() -> None:
    for name in device_names():
        for path in dict(numbers(entries(name))):
            key = path.split(".")[-2]
            without, empty = entries(name), entries(name)
            del at(without, path)["source"]
            at(empty, path)["source"] = " "
            assert f"{key}: source is missing" in refused(without)
            assert f"{key}: source must be a text" in refused(empty)


@pytest.mark.parametrize("bad", [-1, "many", True, 1.5, float("nan"), None])
@pytest.mark.parametrize("key", ["lut", "ff", "dsp", "bram"])
def test_resources_must_be_whole_and_not_negative(key: str, bad: object) -> None:
    content = entries("zu3eg")
    content["resources"][key]["value"] = bad
    assert f"resources: {key}: value must be a whole number of at least 0" in refused(content)


@pytest.mark.parametrize("bad", [-1, 0, "fast", float("nan")])
def test_the_clock_must_run(bad: object) -> None:
    content = entries("zu3eg")
    content["clock_hz"]["value"] = bad
    assert "clock_hz: value must be a number of at least 1" in refused(content)


@pytest.mark.parametrize("bad", [-1, 0, 1.5, None])
@pytest.mark.parametrize("key", ["rows", "columns", "depthwise_macs", "bits_per_cycle", "output_bits"])
def test_a_wrong_or_missing_size_of_an_array_is_named(key: str, bad: object) -> None:
    content, without = entries("bitfusion"), entries("bitfusion")
    content["array"][key]["value"] = bad
    del without["array"][key]
    assert f"array: {key}: value must be a whole number of at least 1" in refused(content)
    assert f"array: {key} is missing" in refused(without)


ENERGY: dict[str, Any] = {
    "mac_j": {"int8": {"value": 3e-13, "source": "a test"}, "float32": {"value": 4.6e-12, "source": "a test"}},
    "register_j_per_byte": {"value": 0.0, "source": "a test"},
    "buffer_j_per_byte": {"value": 1e-12, "source": "a test"},
    "dram_j_per_byte": {"value": 1e-10, "source": "a test"},
}


def test_peak_rates_are_told_by_their_unit() -> None:
    roof = load_device("raspberry-pi-4").roofline
    assert roof is not None
    assert (roof.macs_per_s, roof.bytes_per_s) == ({8: 48e9, 32: 24e9}, 12.8e9)


def test_what_no_one_measured_says_so() -> None:
    for device in map(load_device, device_names()):
        assert device.family not in ("roofline", "systolic", "microcontroller") or device.title.endswith(
            ", not measured"
        )


def test_a_microcontroller_holds_its_flash_and_its_sram() -> None:
    device = load_device("stm32f746")
    assert device.holds == {"weight_bytes": 2.0**20, "peak_bytes": 320 * 1024.0}
    assert device.metrics == ("error", "latency_s", "weight_bytes", "peak_bytes")
    assert load_device("zu3eg").holds == {"lut": 70560.0, "ff": 141120.0, "dsp": 360.0, "bram": 432.0}
    assert not load_device("local-cpu").holds
    warm = parse_device("warm", yaml.safe_dump(entries("stm32f746") | {"energy": ENERGY}))
    assert warm.metrics == METRICS["microcontroller"]


@pytest.mark.parametrize("bad", [-1, 0, 1.5, "1 MB", float("nan"), None])
@pytest.mark.parametrize("key", ["flash_bytes", "sram_bytes"])
def test_a_wrong_memory_is_named(key: str, bad: object) -> None:
    content = entries("stm32f746")
    content[key]["value"] = bad
    assert f"{key}: value must be a whole number of at least 1" in refused(content)


def test_a_systolic_array_is_read() -> None:
    device = load_device("eyeriss")
    assert device.systolic == Systolic(2e8, 12, 14, 16, 4.8e8)
    assert device.clock_hz == 2e8
    assert device.metrics == METRICS["systolic"]
    assert device.energies is not None
    assert device.energies.mac_j == {16: 9e-13}
    peak = load_device("edge-tpu").systolic
    assert peak is not None
    assert 2 * peak.rows * peak.columns * peak.clock_hz == 4e12


@pytest.mark.parametrize("bad", [-1, 0, 1.5, None])
@pytest.mark.parametrize("key", ["rows", "columns", "bits"])
def test_a_wrong_or_missing_size_of_a_systolic_array_is_named(key: str, bad: object) -> None:
    content, without = entries("eyeriss"), entries("eyeriss")
    content["array"][key]["value"] = bad
    del without["array"][key]
    assert f"array: {key}: value must be a whole number of at least 1" in refused(content)
    assert f"array: {key} is missing" in refused(without)


def test_a_systolic_array_is_as_wide_as_what_the_device_supports() -> None:
    content = entries("eyeriss")
    content["array"]["bits"]["value"] = 8
    assert "array: bits must be at least 16, the widest that the device supports; got 8" in refused(content)


@pytest.mark.parametrize("bad", [-1, 0, "fast", float("nan"), float("inf"), True, None])
@pytest.mark.parametrize("path", ["macs_per_s.int8", "bytes_per_s"])
def test_a_wrong_rate_is_named(path: str, bad: object) -> None:
    content = entries("raspberry-pi-4")
    at(content, f"{path}.value")["value"] = bad
    assert f"{path.replace('.', ': ')}: value must be a number of at least 1" in refused(content)


@pytest.mark.parametrize("bad", [-1e-9, "soon", float("nan")])
def test_a_negative_launch_or_energy_is_named(bad: object) -> None:
    content = entries("raspberry-pi-4")
    content["launch_s"]["value"] = bad
    assert "launch_s: value must be a number of at least 0" in refused(content)
    for path in ("mac_j.int8", "register_j_per_byte", "buffer_j_per_byte", "dram_j_per_byte"):
        content = entries("raspberry-pi-4") | {"energy": copy.deepcopy(ENERGY)}
        at(content, f"energy.{path}.value")["value"] = bad
        assert f"energy: {path.replace('.', ': ')}: value must be a number of at least 0" in refused(content)
    for key in ENERGY:
        content = entries("raspberry-pi-4") | {"energy": {other: ENERGY[other] for other in ENERGY if other != key}}
        assert f"energy: {key} is missing" in refused(content)


def test_some_unit_must_be_wide_enough_for_what_the_device_supports() -> None:
    content = entries("raspberry-pi-4") | {"energy": copy.deepcopy(ENERGY)}
    del content["energy"]["mac_j"]["float32"]
    assert "energy: mac_j has no unit for 32 bits; add one of float32, with its source" in refused(content)
    content = entries("raspberry-pi-4")
    content["macs_per_s"]["int32"] = content["macs_per_s"].pop("float32")
    assert "macs_per_s: int32 is an unknown key; did you mean" in refused(content)
    content = entries("raspberry-pi-4") | {"act_bits": {"value": [16], "source": "a test"}}
    content["weight_bits"] = content["act_bits"]
    del content["macs_per_s"]["float32"]
    assert "macs_per_s has no unit for 16 bits; add one of int16, float32" in refused(content)


def test_energy_is_a_metric_of_a_device_whose_file_has_it() -> None:
    content = entries("raspberry-pi-4") | {"objectives": ["error", "energy_j"]}
    assert "objectives must list distinct metrics" in refused(content)
    device = parse_device("warm", yaml.safe_dump(content | {"energy": ENERGY}))
    assert device.metrics == METRICS["roofline"]
    assert device.energies is not None
    assert device.energies.mac_j == {8: 3e-13, 32: 4.6e-12}
    assert "energy is an unknown key" in refused(entries("zu3eg") | {"energy": ENERGY})


@pytest.mark.parametrize("bad", [[], [4, 4], [1], [17], 8, ["4"]])
def test_bits_must_be_widths_the_network_knows(bad: object) -> None:
    content = entries("zu3eg")
    content["act_bits"]["value"] = bad
    assert "act_bits must list distinct bit widths" in refused(content)


def test_unknown_keys_are_refused_with_a_suggestion() -> None:
    content = entries("zu3eg")
    content["resources"]["lutt"] = content["resources"]["lut"]
    assert "resources: lutt is an unknown key; did you mean lut?" in refused(content)
    content = entries("local-cpu") | {"clock_hz": entries("zu3eg")["clock_hz"]}
    assert "clock_hz is an unknown key" in refused(content)


def test_family_and_objectives_must_be_known() -> None:
    assert "did you mean unrolled-fpga" in refused(entries("zu3eg") | {"family": "unrolled"})
    assert "objectives must list distinct metrics" in refused(entries("local-cpu") | {"objectives": ["error", "lut"]})


@pytest.mark.parametrize("text", ["", "- a", "a: [", "3"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(NasError, match="device broken"):
        parse_device("broken", text)


def test_a_cpu_runs_every_layer_and_an_fpga_names_what_it_cannot() -> None:
    shape = (4, 6, 6)
    network = Network(
        (
            Input("image", shape),
            Conv2d("stem", ("image",), shape, shape, 3, activation="hswish"),
            Conv2d("second", ("stem",), shape, shape, 3, activation="hswish"),
            Pool("pool", ("second",), shape, 2, 2, "mean"),
            Mean("squeeze", ("pool",), (4, 3, 3)),
            Linear("gates", ("squeeze",), (4,), (4,), "hsigmoid"),
            Scale("scale", ("pool", "gates"), (4, 3, 3)),
            Add("add", ("scale", "pool"), (4, 3, 3), activation="relu"),
        )
    )
    assert unsupported_layers(load_device("local-cpu"), network) == []
    faults = unsupported_layers(load_device("zu3eg"), network)
    assert [fault.split(";")[0] for fault in faults] == [
        "zu3eg: layer stem and 1 more: activation hswish cannot be unrolled",
        "zu3eg: layer pool: operation pool cannot be unrolled",
        "zu3eg: layer squeeze: a mean over 9 positions is no shift",
        "zu3eg: layer gates: activation hsigmoid cannot be unrolled",
        "zu3eg: layer scale: operation scale cannot be unrolled",
    ]
    assert all("choose" in fault for fault in faults)


def test_an_fpga_holds_relu_sums_and_means_that_are_shifts() -> None:
    shape = (4, 8, 8)
    network = Network(
        (
            Input("image", shape),
            Conv2d("stem", ("image",), shape, shape, 3, activation="relu"),
            Add("add", ("stem", "image"), shape, activation="relu"),
            Mean("mean", ("add",), shape),
            Linear("head", ("mean",), (4,), (10,)),
        )
    )
    assert unsupported_layers(load_device("zu3eg"), network) == []
