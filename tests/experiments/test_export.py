"""What an export says of RTL that it does not write."""

from pathlib import Path

from experiments.stages.export import why_no_rtl
from fpga.rtl import SOON
from fpga.unrolling import LARGEST_PRODUCTS


def test_large_rtl_is_left_to_a_command_and_what_cannot_be_unrolled_to_the_search() -> None:
    told = why_no_rtl(SOON + 1, Path("runs/digits"), "zu3eg")
    assert "`nas fpga synth runs/digits --device zu3eg --limit 3600`" in told
    assert f"above {SOON}," in told
    beyond = why_no_rtl(LARGEST_PRODUCTS + 1, Path("runs/digits"), "zu3eg")
    assert f"above {LARGEST_PRODUCTS}, are too many to unroll" in beyond
    assert "synth" not in beyond
