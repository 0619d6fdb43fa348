"""The walk of `demo anchors` as a picture, from left to right in time.

    node at       mar1 | mar3 | mar2 ...      a band for each stay
    mar1          ######========              anchored: while the node is there; while it is tunnelled to it
    ...
    connections   ------                      the long ones, each in the colour of its anchor
    short ones    | | | |
    lost          .
"""

from collections.abc import Iterator

from router.demo.anchors_outcome import ALIVE, Anchored, Outcome
from router.demo.svg import box, document, line, text

WIDTH, MARGIN, LABELS = 960.0, 24.0, 110.0
TOP, ROW, BETWEEN = 72.0, 20.0, 10.0
THIN = 6.0  # height of a connection
AXIS = 28.0
EVERY = 10  # s between two marks of time
COLOURS = ("#0969da", "#1a7f37", "#bc4c00", "#8250df", "#9a6700", "#bf3989", "#57606a", "#116329", "#a40e26")
STYLE = """
  .tunnelled { fill-opacity: 0.45; } .waiting { fill-opacity: 0.12; } .lost { fill: #cf222e; }
  .released { stroke: #cf222e; stroke-width: 2; } .mark { stroke: #d0d7de; stroke-opacity: 0.6; }
""" + "".join(f"  .of{number} {{ fill: {colour}; }}\n" for number, colour in enumerate(COLOURS))


class Timeline:
    """One picture in the making."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._routers = sorted({stay.what for stay in outcome.stays} | {each.anchor for each in outcome.anchors})
        self._scale = (WIDTH - 2 * MARGIN - LABELS) / max(1e-9, outcome.ended - outcome.began)
        self._y = TOP

    def draw(self) -> str:
        """The text of an SVG file."""
        body = [*self._stays(), *self._anchors(), *self._connections(), *self._shorts(), *self._losses()]
        body = [*self._marks(self._y), *body]
        released = sum(each.released is not None for each in self._outcome.anchors)
        prefixes = len({each.prefix for each in self._outcome.anchors})
        subtitle = (
            f"{len(self._outcome.stays) - 1} moves in {self._outcome.ended - self._outcome.began:.0f} s; "
            f"{prefixes} prefixes lent, {released} times one was released as nobody needed it; full colour: delivered "
            "on the link, pale: through a tunnel, red stroke: released"
        )
        return document(WIDTH, self._y + AXIS, "Where the node was, and who was its anchor", subtitle, STYLE, body)

    def _x(self, at: float) -> float:
        return MARGIN + LABELS + (at - self._outcome.began) * self._scale

    def _colour(self, router: str) -> str:
        return f"of{self._routers.index(router) % len(COLOURS)}" if router in self._routers else "quiet"

    def _row(self, title: str, height: float) -> float:
        """The top of a new row."""
        self._y += height + BETWEEN
        return self._y - height - BETWEEN

    def _span(self, begin: float, end: float, y: float, height: float, kind: str, tip: str) -> str:
        return box(self._x(begin), y, (end - begin) * self._scale, height, kind, tip)

    def _stays(self) -> Iterator[str]:
        y = self._row("node at", ROW)
        yield text(MARGIN, y + 14, "node at", "panel")
        for stay in self._outcome.stays:
            yield self._span(stay.begin, stay.end, y, ROW, self._colour(stay.what), f"at {stay.what}")

    def _anchors(self) -> Iterator[str]:
        for router in self._routers:
            of_router = [each for each in self._outcome.anchors if each.anchor == router]
            y = self._row(router, ROW)
            yield text(MARGIN, y + 14, f"{router} anchors", "panel")
            for anchored in of_router:
                yield from self._anchored(anchored, y)

    def _anchored(self, anchored: Anchored, y: float) -> Iterator[str]:
        colour = self._colour(anchored.anchor)
        for span in anchored.states:
            kind = {"local": "", "remote": " tunnelled", "split": " tunnelled"}.get(span.what, " waiting")
            if span.what != "free":
                yield self._span(span.begin, span.end, y, ROW, colour + kind, f"{anchored.prefix}: {span.what}")
        for before, after in zip(anchored.states, anchored.states[1:], strict=False):
            if before.what in ALIVE and after.what not in ALIVE:
                x = self._x(after.begin)
                yield line(x, y - 3, x, y + ROW + 3, "released")

    def _connections(self) -> Iterator[str]:
        y = self._row("connections", len(self._outcome.connections) * (THIN + 3))
        yield text(MARGIN, y + 12, "long connections", "panel")
        for number, each in enumerate(self._outcome.connections):
            came = f"{each.octets / 1e6:.1f} MB, {each.error or 'no error'}"
            tip = f"{each.number}: on an address of {each.anchor}, {came}"
            yield self._span(each.begin, each.end, y + number * (THIN + 3), THIN, self._colour(each.anchor), tip)

    def _shorts(self) -> Iterator[str]:
        y = self._row("short", ROW / 2)
        yield text(MARGIN, y + 9, "short ones", "panel")
        for each in self._outcome.shorts:
            kind = "lost" if each.error else self._colour(each.anchor)
            tip = f"on an address of {each.anchor}: {each.error}" if each.error else each.anchor
            yield box(self._x(each.begin), y, 1.5, ROW / 2, kind, tip)

    def _losses(self) -> Iterator[str]:
        y = self._row("lost", ROW)
        yield text(MARGIN, y + 14, "lost", "panel")
        for stay, lost in zip(self._outcome.stays[1:], self._outcome.lost, strict=False):
            if lost:
                yield text(self._x(stay.begin) - 3, y + 14, str(lost))

    def _marks(self, bottom: float) -> Iterator[str]:
        for second in range(0, int(self._outcome.ended - self._outcome.began) + 1, EVERY):
            x = self._x(self._outcome.began + second)
            yield line(x, TOP - 6, x, bottom, "mark")
            yield text(x, bottom + 14, f"{second} s", "quiet", anchor="middle")


def draw(outcome: Outcome) -> str:
    """The picture of a walk, as the text of an SVG file."""
    return Timeline(outcome).draw()
