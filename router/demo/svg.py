"""The little SVG that our pictures are made of; its colours follow the reader's choice of light or dark."""

from collections.abc import Iterable
from html import escape

STYLE = """
  svg { color-scheme: light dark; font: 11px system-ui, sans-serif; }
  .back { fill: #ffffff; } text { fill: #24292f; } .quiet { fill: #57606a; } .axis { stroke: #d0d7de; }
  .title { font-size: 17px; font-weight: 600; } .panel { font-size: 13px; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #8b949e; } .axis { stroke: #30363d; }
  }
"""


def document(width: float, height: float, title: str, subtitle: str, style: str, body: Iterable[str]) -> str:
    """A whole picture, as the text of a file. style: CSS beside the common one."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'width="{width:g}" height="{height:g}">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(subtitle)}</desc>",
        f"<style>{STYLE}{style}</style>",
        f'<rect class="back" width="{width:g}" height="{height:g}" rx="8"/>',
        text(24, 30, title, "title"),
        text(24, 48, subtitle, "quiet"),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "", size: int = 0) -> str:
    """One line of text. size: 0 for the usual one."""
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in (("class", kind), ("text-anchor", anchor), ("font-size", f"{size}px" if size else ""))
        if value
    )
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, tip: str) -> str:
    """A rectangle of some class. tip: what it says when pointed at."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:g}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of some class."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
