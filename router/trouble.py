"""What of all that happens is trouble: told in the log without being asked for, with what cures it."""

from collections.abc import Mapping
from typing import Any

TROUBLE = frozenset(
    (
        "anchor-is-no-peer",
        "anchor-refuses",
        "anchor-without-multipath",
        "answer-does-not-match",
        "cmd-away",
        "cmd-is-none",
        "gateway-restarted",
        "gateway-unreachable",
        "message-refused",
        "no-such-site",
        "no-uplink",
        "not-registered",
        "not-sent",
        "notification-refused",
        "peer-restarted",
        "peer-unreachable",
        "pool-empty",
        "registration-expired",
        "registration-refused",
        "revocation-refused",
        "serving-router-is-no-peer",
        "store-away",
        "update-refused",
    )
)
AT_THE_ANCHOR = {  # status of a refusal -> what to change, in the words of the configuration
    "INSUFFICIENT_RESOURCES": "its pools are used up: give [anchor] more prefixes",
    "MIPV6_AUTH_FAIL": "the key does not fit: make it the same on both routers",
    "SERVICE_AUTHORIZATION_FAILED": "its [[node]] names other services: add this one, or change [gateway] services",
    "PROXY_REG_NOT_ENABLED": "its [[node]] says refused = true: take that away to serve it",
    "NOT_LMA_FOR_THIS_MOBILE_NODE": "it has no [[node]]: give it one, or set [anchor] known_nodes_only = false",
    "MAG_NOT_AUTHORIZED_FOR_PROXY_REG": "this gateway is not in gateways of its [[node]]: add it there",
    "NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX": "it asks for a prefix that is not its own: see prefixes of its [[node]]",
    "TIMESTAMP_MISMATCH": "the clocks differ: run NTP on both routers",
    "NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE": "no IPv4 for it: see ipv4 of its [[node]], and [anchor] ipv4_prefixes",
    "NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE": "no IPv6 for it: see ipv6 of its [[node]]",
    "NOT_AUTHORIZED_FOR_DELEGATED_MNP": "no delegation for it: see delegation of its [[node]]",
    "CANNOT_SUPPORT_MULTIPATH_BINDING": "one path only: see multipath of its [[node]], and [anchor] multipath",
}
AT_A_GATEWAY = {status: f"the anchor says: {cure}" for status, cure in AT_THE_ANCHOR.items()}
CURES = {"update-refused": AT_THE_ANCHOR, "registration-refused": AT_A_GATEWAY}


def with_cure(event: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is told of an event, and what cures it if that is known and not told already."""
    if event not in CURES or "why" in fields:
        return fields
    cure = CURES[event].get(str(fields.get("status")))
    return {**fields, "why": cure} if cure else fields
