"""What can go wrong in the engine: EngineError and its kinds. Each says what, where, why, and the cure."""

from __future__ import annotations

import reprlib


class EngineError(Exception):
    """Root of the engine's errors. One line of text, for people; nobody parses it."""

    def __init__(self, what: str, *, where: str = "", why: str = "", cure: str = "") -> None:
        self.what, self.where, self.why, self.cure = what, where, why, cure
        head = f"{what} ({where})" if where else what
        super().__init__(": ".join(part for part in (head, why) if part) + (f"; {cure}" if cure else ""))


class Misused(EngineError, TypeError):  # noqa: N818 - the names say what happened, as in the standards
    """A call was given what it does not take, or there was to be a second of what there is one of."""


class BadPacket(EngineError):  # noqa: N818
    """No octets, or more than a packet can have."""


class UnknownPrefix(EngineError):  # noqa: N818
    """The prefix is not in the tables."""


class UnknownTunnel(EngineError):  # noqa: N818
    """Nothing is bound to the tunnel, directly or through a bundle."""


class BadBundle(EngineError):  # noqa: N818
    """These paths do not make a bundle, or the bundle or policy is of other tables."""


class BadTunnel(EngineError):  # noqa: N818
    """No packet could ever use this tunnel (RFC 2473 4.1.2)."""


class NotCompiled(EngineError):  # noqa: N818
    """The compiled path was asked for, and it is not built (or the tables are not compiled ones)."""


class PortError(EngineError):
    """A port could not be opened, added or served."""


class PortDown(PortError):  # noqa: N818
    """The descriptor is of no more use: its device was removed, or it was closed."""


class DeviceMissing(PortError):  # noqa: N818
    """There is no /dev/net/tun."""


class NoRights(PortError):  # noqa: N818
    """The kernel wants a capability that we lack."""


class NameInUse(PortError):  # noqa: N818
    """The device exists and belongs to someone else."""


class AddressInUse(PortError):  # noqa: N818
    """Another socket has that address and port."""


class AddressNotLocal(PortError):  # noqa: N818
    """No interface has that address (yet)."""


def expect(what: str, value: object, *kinds: type) -> None:
    """Raises Misused (what: could not be done) unless value is of one of these kinds."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        why = f"it is of type {type(value).__name__}"
        raise Misused(what, where=reprlib.repr(value), why=why, cure=f"give {wanted}")
