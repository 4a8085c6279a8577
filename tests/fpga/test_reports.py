"""Reports in the layouts the tools print."""

import pytest

from fpga.reports import PARSERS, Report, csynth_rpt, csynth_xml, nextpnr_ecp5, yosys_stat
from nas.errors import NasError

YOSYS_OLD = """
=== stage ===

   Number of wires:                 40
   Number of cells:                 12
     FDRE                            9
     LUT6                            3

=== top ===

   Number of cells:                  3
     LUT2                            1
     stage                           2

=== design hierarchy ===

   top                               1
     stage                           2

   Number of wires:                 99
   Number of wire bits:            412
   Number of cells:                 33
     CARRY4                          2
     DSP48E2                         1
     FDRE                           18
     LUT2                            1
     LUT6                            6
     RAMB36E2                        2
     SRL16E                          3
"""

YOSYS_NEW = """
=== top ===

        +----------Local Count, excluding submodules.
        |
       38 wires
      412 wire bits
       31 cells
        2   CARRY4
       18   FDCE
       11   LUT4
"""

YOSYS_JSON = """{"creator": "Yosys 0.23", "modules": {"\\\\top": {"num_cells": 5, "num_cells_by_type": {
"CCU2C": 2, "LUT4": 10, "TRELLIS_FF": 7, "MULT18X18D": 1, "DP16KD": 1}}}}"""

NEXTPNR = """
Info: Device utilisation:
Info: \t          TRELLIS_IO:    62/    245    25%
Info: \t              DP16KD:      18/    108    16%
Info: \t          MULT18X18D:       5/     72     6%
Info: \t          TRELLIS_FF:     473/  43848     1%
Info: \t        TRELLIS_COMB:     821/  43848     1%
Info: Max frequency for clock '$glbnet$clk': 88.10 MHz (PASS at 50.00 MHz)
Info: Max frequency for clock '$glbnet$clk': 97.42 MHz (PASS at 50.00 MHz)
ERROR: Max frequency for clock       'slow': 40.50 MHz (FAIL at 50.00 MHz)
"""

CSYNTH_XML = """<?xml version="1.0" encoding="utf-8"?>
<profile><UserAssignments><TargetClockPeriod>3.33</TargetClockPeriod></UserAssignments>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>2.500</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><Best-caseLatency>40</Best-caseLatency><Worst-caseLatency>62</Worst-caseLatency>
<Interval-min>1</Interval-min><Interval-max>24</Interval-max></SummaryOfOverallLatency></PerformanceEstimates>
<AreaEstimates><Resources><BRAM_18K>16</BRAM_18K><DSP>177</DSP><FF>34282</FF><LUT>31704</LUT><URAM>0</URAM></Resources>
<AvailableResources><LUT>14400</LUT></AvailableResources></AreaEstimates></profile>"""

CSYNTH_RPT = """
================================================================
== Performance Estimates
================================================================
+ Timing:
    * Summary:
    +--------+---------+----------+------------+
    |  Clock |  Target | Estimated| Uncertainty|
    +--------+---------+----------+------------+
    |ap_clk  | 3.33 ns | 2.500 ns |   0.90 ns  |
    +--------+---------+----------+------------+

+ Latency:
    * Summary:
    +---------+---------+-----------+-----------+-----+-----+----------+
    |  Latency (cycles) |   Latency (absolute)  |  Interval | Pipeline |
    |   min   |   max   |    min    |    max    | min | max |   Type   |
    +---------+---------+-----------+-----------+-----+-----+----------+
    |       40|       62|  0.133 us |  0.206 us |    1|   24| function |
    +---------+---------+-----------+-----------+-----+-----+----------+

================================================================
== Utilization Estimates
================================================================
* Summary:
+-----------------+---------+------+-------+-------+-----+
|       Name      | BRAM_18K|  DSP |   FF  |  LUT  | URAM|
+-----------------+---------+------+-------+-------+-----+
|DSP              |        -|     -|      -|      -|    -|
|Register         |        -|     -|    200|      -|    -|
+-----------------+---------+------+-------+-------+-----+
|Total            |       16|   177|  34282|  31704|    0|
+-----------------+---------+------+-------+-------+-----+
|Available        |      100|    66|  28800|  14400|    0|
+-----------------+---------+------+-------+-------+-----+
"""

CSYNTH = Report("hls4ml report", 31704, 34282, 177, 16, 400e6, 62, 24)


def test_yosys_totals_count_shift_registers_and_large_memories() -> None:
    assert yosys_stat(YOSYS_OLD) == Report("yosys synthesis", 10, 18, 1, 4)


def test_yosys_new_layout_and_json() -> None:
    assert yosys_stat(YOSYS_NEW) == Report("yosys synthesis", 11, 18, 0, 0)
    assert yosys_stat(YOSYS_JSON) == Report("yosys synthesis", 14, 7, 1, 1)


def test_nextpnr_takes_the_slowest_clock_after_routing() -> None:
    assert nextpnr_ecp5(NEXTPNR) == Report("place-and-route", 821, 473, 5, 18, 40.5e6)
    routed = "\n".join(line for line in NEXTPNR.splitlines() if "slow" not in line)
    assert nextpnr_ecp5(routed).fmax_hz == pytest.approx(97.42e6)
    placed = "\n".join(line for line in NEXTPNR.splitlines() if "Max" not in line)
    assert nextpnr_ecp5(placed).fmax_hz is None


def test_both_reports_of_c_synthesis_agree() -> None:
    assert csynth_xml(CSYNTH_XML) == csynth_rpt(CSYNTH_RPT) == CSYNTH
    assert csynth_xml(CSYNTH_XML.replace("DSP>", "DSP48E>")) == CSYNTH
    assert csynth_rpt(CSYNTH_RPT.replace(" DSP |", "DSP48E|")) == CSYNTH


def test_an_unknown_latency_is_none() -> None:
    assert csynth_xml(CSYNTH_XML.replace(">62<", ">undef<")).latency_cycles is None
    assert csynth_rpt(CSYNTH_RPT.replace("|       40|       62|", "|        ?|        ?|")).latency_cycles is None


@pytest.mark.parametrize("tool", PARSERS)
@pytest.mark.parametrize("text", ["", "{}", "{", "<profile/>", "nothing of use | here"])
def test_other_text_is_refused(tool: str, text: str) -> None:
    with pytest.raises(NasError, match=tool.split(".")[0]):
        PARSERS[tool](text)


def test_modules_without_a_total_are_refused() -> None:
    with pytest.raises(NasError, match="no total"):
        yosys_stat(YOSYS_OLD.split("=== design")[0])
