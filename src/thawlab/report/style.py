"""One style for all figures: drawn with stand-in colours that become the page's own, so that dark pages get dark figures."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stand-in → (name of the page's colour, colour in a figure that stands alone). Stand-ins are colours nobody would choose.
FOREGROUND, MUTED, GRID = "#010203", "#020304", "#030405"
BLUE, ORANGE, GREEN = "#040506", "#050607", "#060708"
_COLOURS = {
    FOREGROUND: ("--fg", "#1d232b"),
    MUTED: ("--muted", "#5b6673"),
    GRID: ("--line", "#d5dbe2"),
    BLUE: ("--accent", "#1f6feb"),
    ORANGE: ("--second", "#c2570c"),
    GREEN: ("--third", "#1a7f4b"),
}
# The accent as red, green, blue in [0, 1], for cells whose opacity carries the value.
ACCENT_RGB = (0.19, 0.49, 0.93)

# Pixels per point of a figure on the page: narrower pages scroll it, wider ones leave room beside it.
_LEAST, _MOST = 1.05, 1.6

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": FOREGROUND,
    "axes.labelcolor": FOREGROUND,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": FOREGROUND,
    "ytick.labelcolor": FOREGROUND,
    "legend.frameon": False,
    "lines.linewidth": 1.9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def figure(width: float, height: float, name: str) -> Iterator[Figure]:
    """Yield an empty figure in the project's style; sizes in inches. `name` keeps the ids of several figures apart."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(drawing: Figure) -> str:
    """Return a figure as an SVG element with stand-in colours."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The text is drawn by the browser; that the fonts here lack a script matters only for measuring it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The fonts are the page's; matplotlib would name those of the machine it runs on.
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    # Older versions of matplotlib write all of it as one property.
    return re.sub(r"font: ([\d.]+px|(?:\w+ )*[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)


def for_page(svg: str) -> str:
    """Replace the stand-ins by the page's colours, and let the figure take the width it is given while text stays readable."""
    for stand_in, (variable, _) in _COLOURS.items():
        svg = svg.replace(stand_in, f"var({variable})")

    def sized(match: re.Match[str]) -> str:
        width = float(match[2])
        return f'<svg aria-hidden="true" style="min-width:{width * _LEAST:.0f}px;max-width:{width * _MOST:.0f}px" {match[1]}'

    return re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', sized, svg, count=1, flags=re.DOTALL)


def for_file(svg: str) -> str:
    """Replace the stand-ins by colours for a light page."""
    for stand_in, (_, colour) in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace("<svg ", '<svg style="background:#fff" ', 1)
