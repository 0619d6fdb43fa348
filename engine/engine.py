"""Engine: ports, and the path between them. The loop calls serve when a port has something to read.

    loop.add_reader(port.fd, engine.serve, port)
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from engine import fast, model
from engine.errors import NotCompiled, PortDown, PortError
from engine.ports import Port
from engine.stats import Counters, Drop
from engine.tables import Tables
from engine.tunnels import Encapsulated

NOWHERE = bytes(16)  # local address of a TUN port


class Engine:
    """One data path over tables, for one thread. Several engines may share the tables.

    compiled: True wants the compiled path (or NotCompiled), False the model, None the best the tables allow.
    """

    def __init__(self, tables: Tables, *, compiled: bool | None = None) -> None:
        if compiled and not tables.compiled:
            raise NotCompiled("no compiled path", why="the tables are Python ones", cure="use compiled tables")
        self.tables = tables
        self._path = _path(tables, use_fast=tables.compiled and compiled is not False)

    @property
    def compiled(self) -> bool:
        """This engine runs the compiled path, not the model."""
        return not isinstance(self._path, model.Path)

    def add_port(self, port: Port) -> None:
        """Serve port, and send by it. Raises PortError past 64 ports."""
        try:
            self._path.add_port(port.fd, port.kind.value, port.local.packed if port.local else NOWHERE)
        except OverflowError as error:
            raise PortError("cannot add port", where=str(port), why=str(error)) from None

    def remove_port(self, port: Port) -> None:
        """Forget port, before it is closed. Nothing happens if it was not there."""
        self._path.remove_port(port.fd)

    def serve(self, port: Port) -> int:
        """Take one burst (64 packets at most) from port through the path; packets taken, dead ones included.

        Raises PortDown when the descriptor is of no more use: a TUN device was removed, a socket closed.
        Take its reader off the loop then: a dead descriptor stays readable, and the loop would call at once again.
        """
        taken = self._path.serve(port.fd)
        if taken < 0:
            raise PortDown("port is down", where=str(port), why=os.strerror(-taken), cure="open it again")
        return taken

    def encapsulate(self, packets: Sequence[bytes]) -> list[Encapsulated | Drop]:
        """What packets from the TUN would become, in memory; counted as if they had left."""
        return [
            Drop(answer) if isinstance(answer, int) else Encapsulated._make(answer)
            for answer in self._path.encapsulate(list(packets))
        ]

    def decapsulate(self, arrivals: Sequence[Encapsulated]) -> list[bytes | Drop]:
        """The inner packets that would reach the TUN, in memory; counted as if delivered."""
        rows = [(tunnel.key, traffic_class, packet) for tunnel, traffic_class, packet in arrivals]
        answers = self._path.decapsulate(rows)
        return [Drop(answer) if isinstance(answer, int) else answer for answer in answers]

    def rehearse(self, packets: Sequence[bytes], *, rounds: int) -> None:
        """Encapsulate the first 64 packets again and again, results thrown away: the path alone, for the bench."""
        self._path.rehearse(list(packets), rounds)

    def counters(self) -> Counters:
        """All counters of this engine."""
        *row, drops = self._path.counters()
        return Counters.from_row([number for number in row if isinstance(number, int)], list(drops))


def _path(tables: Tables, *, use_fast: bool) -> model.AnyPath:
    if use_fast and fast.Path and fast.Tables and isinstance(tables.storage, fast.Tables):
        return fast.Path(tables.storage)
    return model.Path(tables.storage)
