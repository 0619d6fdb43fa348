"""What the data path has to do for a session: its prefixes, and the ways they take, as the registrations stand.

Nothing here decides anything: after whatever happened to a session, what was bound is compared with what should be.
"""

from dataclasses import replace
from ipaddress import IPv4Network

from signaling.actions import Action, BackToAnchor, Bind, Held, Path, TowardAnchor, Unbind
from signaling.pmip.binding_update_list import Session, Stage
from signaling.pmip.update_sender import tunnel_of
from signaling.settings import Prefix


def changes(session: Session) -> list[Action]:
    """Bind what takes another path now, unbind what is no more."""
    wanted = paths(session)
    actions: list[Action] = [
        Bind(prefix=prefix, path=path, node=session.node)
        for prefix, path in wanted.items()
        if session.bound.get(prefix) != path
    ]
    actions += [Unbind(prefix=prefix, node=session.node) for prefix in session.bound if prefix not in wanted]
    session.bound = wanted
    return actions


def paths(session: Session) -> dict[Prefix, Path]:
    """The path of every prefix of a session: by all that is registered, held while that may come back, or none.

    What still comes for a node that left goes back to the anchor as soon as that holds it too.
    """
    tunnels = tuple(tunnel_of(item) for item in session.of(Stage.REGISTERED))
    if session.present and tunnels:
        # by the node's link-local address, which is known: no packet has to wait until another one is resolved
        home = TowardAnchor(
            tunnels=tunnels,
            interface=session.interface,
            gateway=None if session.lasting else session.gateway,
            policy=session.policy,
        )
        site = TowardAnchor(
            tunnels=tunnels,
            interface=session.delegated_interface or ("" if session.lasting else session.interface),
            gateway=session.gateway,
            policy=session.policy,
        )
        found: dict[Prefix, Path] = {option.prefix: home for option in session.home_prefixes}
        if session.ipv4 is not None:
            found[IPv4Network(session.ipv4.ip)] = replace(home, gateway=None)  # that one is an IPv6 address
        return found | dict.fromkeys(session.delegated, site)
    told = [item for item in session.of(Stage.LEAVING) if item.taken_back]
    if told and len(told) == len(session.registrations):
        return dict.fromkeys(session.bound, BackToAnchor(tunnels=tuple(map(tunnel_of, told))))
    if _may_come_back(session):
        return dict.fromkeys(session.bound, Held())
    return {}


def _may_come_back(session: Session) -> bool:
    if not session.present:
        return bool(session.of(Stage.LEAVING, Stage.DEREGISTERING))
    waiting = session.of(Stage.PENDING, Stage.STRANDED)
    return any(item.expires > 0 for item in waiting)
