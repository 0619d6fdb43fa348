"""Where a session is after an update: its MAG, its Proxy-CoAs, their keys and labels; or nothing of it is new."""

from ipaddress import IPv6Address
from typing import NamedTuple

from signaling.access_link import ROUTER_ADDRESS
from signaling.iana import BindingUpdateFlag, HandoffIndicator, RevocationTrigger, Status
from signaling.pmip.mobility_session import UNNUMBERED, CareOf, MobilitySession
from signaling.pmip.proxy_checks import OVERWRITE
from signaling.pmip.registration_request import RegistrationRequest
from signaling.wire.options.access import LinkLocalAddress
from signaling.wire.options.identity import ServiceSelection
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix
from signaling.wire.options.tunnel import GreKey

ACCEPTED = Status.BINDING_UPDATE_ACCEPTED
TLV = int(BindingUpdateFlag.TLV_HEADER_FORMAT)


def is_refresh(request: RegistrationRequest, session: MobilitySession, path: CareOf) -> bool:
    """Whether the update changes nothing but times: the usual case, so it is told apart by a few comparisons."""
    multipath = request.multipath
    found = request.found
    if (
        path.address != request.care_of
        or session.leaving
        or session.gateway != request.gateway
        or session.link_layer != request.link_layer
        or session.technology != request.technology
        or path.port != request.port
        or path.local != request.local
        or bool(path.data_port) != request.in_udp
        or session.flows
        or request.speaks_of_flows
    ):
        return False
    if multipath is not None and (
        multipath.interface_label != path.label
        or multipath.interface_technology != path.technology
        or request.wants(OVERWRITE)
    ):
        return False
    if multipath is None and len(session.care_ofs) > 1:
        return False
    if GreKey in found or session.gre_keys or ServiceSelection in found or DelegatedMobileNetworkPrefix in found:
        return False
    if LinkLocalAddress in found and link_local(request, session) != session.link_local:
        return False
    return (session.ipv4_home is not None or not request.asks_ipv4) and bool(
        session.prefixes or not request.asks_ipv6
    )


def place(request: RegistrationRequest, session: MobilitySession) -> CareOf:
    """Put the Proxy-CoA of the update in its place; returns it.

    Without a multipath binding it replaces all. With one it replaces that of its BID; another MAG, or the O flag,
    replaces all (RFC 8278 4.1).
    """
    multipath, same_gateway = request.multipath, session.gateway == request.gateway
    path = session.path(request.binding_id) if same_gateway else None
    if path is None:
        path = CareOf(request.binding_id, request.care_of)
    path.address, path.local, path.port = request.care_of, request.local, request.port
    if multipath is not None:
        path.label, path.technology = multipath.interface_label, multipath.interface_technology
    alone = multipath is None or not same_gateway or request.wants(OVERWRITE) or session.leaving
    others = () if alone else tuple(it for it in session.care_ofs if it is not path and it.binding_id != UNNUMBERED)
    session.keep(tuple(sorted((*others, path), key=lambda care_of: care_of.binding_id)))
    if not same_gateway:
        session.gateway, session.departed = request.gateway, None
    remember_order(request, path)
    return path


def remember_order(request: RegistrationRequest, path: CareOf) -> None:
    """Nothing older than this update is accepted for the path."""
    if request.timestamp is not None:
        path.timestamp = request.timestamp
    else:
        path.sequence_number = request.update.sequence_number


def exchange_keys(
    request: RegistrationRequest, session: MobilitySession, path: CareOf, *, wanted: bool
) -> tuple[Status, GreKey | None]:
    """GRE as RFC 5845 5.2 has it: the status of the answer and its option. wanted: this LMA does GRE with keys."""
    option = request.get(GreKey)
    if option is None or not wanted or path.data_port:
        path.downlink_key, session.gre_keys = None, False
        return (ACCEPTED if option is None else Status.GRE_KEY_OPTION_NOT_REQUIRED), None
    path.downlink_key, session.gre_keys = option.key, option.key is not None
    tlv = request.has_flag(TLV)
    status = Status.GRE_TUNNELING_BUT_TLV_HEADER_NOT_SUPPORTED if tlv else ACCEPTED
    return status, GreKey(key=session.uplink_key)


def link_local(request: RegistrationRequest, session: MobilitySession) -> IPv6Address | None:
    """The MAG's address on the access link: as it says, or the one it had before, or that of RFC 6543."""
    option = request.get(LinkLocalAddress)
    if option is None:
        return session.link_local
    return option.address if int(option.address) else session.link_local or ROUTER_ADDRESS


def path_named(request: RegistrationRequest, session: MobilitySession) -> CareOf | None:
    """The path that a de-registration is about; without a BID, the one with its Proxy-CoA."""
    if request.multipath is not None:
        return session.path(request.binding_id)
    same = (care_of for care_of in session.care_ofs if care_of.address == request.care_of)
    return next(same, session.care_ofs[0] if session.care_ofs else None)


def handover_trigger(request: RegistrationRequest, session: MobilitySession) -> RevocationTrigger:
    """What the old MAG is told when the session comes to where the update was sent."""
    if request.handoff == HandoffIndicator.HANDOFF_STATE_UNKNOWN:
        return RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN
    if request.technology == session.technology:
        return RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE
    return RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE


class Facts(NamedTuple):
    """What of a session is durable; order and time left out. shape: as much as the data path makes of it."""

    shape: object
    ports: object
    access: object


def facts(session: MobilitySession) -> Facts:
    """Of a session as it is now."""
    ways = [
        (it.binding_id, it.address, it.local, it.data_port, it.label, it.downlink_key) for it in session.care_ofs
    ]
    ports = [(it.port, it.technology) for it in session.care_ofs]
    access = session.gateway, session.link_layer, session.technology, session.service, session.link_local
    return Facts((session.bound, ways, session.flows, session.leaving, session.gre_keys), ports, access)
