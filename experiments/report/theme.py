"""Colours of the figures, and the SVG that takes them from the page instead.

The palette is that of Okabe and Ito, which colour-blind readers tell apart; shapes repeat what colours say.
"""

from __future__ import annotations

import re
from typing import Any

INK, MUTED, GRID, PAPER = "#1f2933", "#66717e", "#dde2e8", "#fffffe"
JOINT, DENSE, CLOUD = "#0072b2", "#d55e00", "#98a1ac"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", JOINT: "joint", DENSE: "dense"}
"""Colours of the light theme, and the page's CSS variables that stand for them."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "svg.fonttype": "none",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 8.5, "axes.titlesize": 10, "axes.titlelocation": "left", "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
"""What all figures share, those of the benchmarks too."""


def themed(svg: str) -> str:
    """An SVG file as an element for a page: without size, unused ids and fixed colours of the theme.

    Args:
        svg: The file, its ids unlike those of other figures of the page.
    """
    element = svg[svg.index("<svg") :]
    used = set(re.findall(r"#([\w-]+)[\")]", element))
    element = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", element)
    for attribute in ("width", "height"):
        element = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", element, count=1)
    for colour, variable in _VARIABLES.items():
        element = element.replace(colour, f"var(--{variable})")
    return element
