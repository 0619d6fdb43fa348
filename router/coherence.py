"""What of a configuration can only be seen from several values at once: what overlaps, is taken, is named nowhere.

`check` adds a problem for each. A value that is wrong by itself is None here and was told already.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

from router.flow_policies import Labels
from router.places import RoleName
from router.toml_text import Problems
from signaling.flow_rules import Spread
from signaling.settings import Address, Authentication, CmdMode, PathCare

VALID_LIFETIME = 7200  # s
PREFERRED_LIFETIME = 1800  # s, RFC 8273 5
DELEGATED_LENGTH = 56
BINDING_LIFETIME = 300  # s
LOOPBACK = "lo"
LAST_BID = 254  # RFC 8278 4.1
NUMBERED = (Spread.PER_PACKET, Spread.BICAST)

Found = Mapping[str, Any]


def check(found: Found, labels: Labels, problems: Problems, role: RoleName | None) -> None:
    """All of it. found: values by their field of Config; role: None where it is not known."""
    _check_pools(found, problems)
    _check_lifetimes(found, problems)
    _check_access(found.get("interfaces") or (), problems)
    # a MAR without a name has one that orders may say; that of the others is in nobody's way
    _check_peers(found, problems, found.get("name") or (role.value if role is RoleName.MAR else ""))
    _check_nodes(found, problems)
    _check_uplinks(found, labels, problems)
    _check_sites(found, problems)
    _check_keys(found, problems)
    if role is not None:
        NEEDS[role](found, problems)


# --- prefixes and times ---


POOLS = {
    "prefixes": "prefixes",
    "delegated_prefixes": "anchoring.delegated_prefixes",
    "ipv4_prefixes": "anchoring.ipv4_prefixes",
}  # key of [anchor] -> field


def router_in_a_pool(pools: Sequence[IPv6Network | IPv4Network], address: Address, whose: str) -> str | None:
    """Why no pool may hold this address of a router: it would be lent to a node, and routed into the tunnels."""
    pool = next((each for each in pools if each.version == address.version and address in each), None)
    return f"{pool} holds {address}, {whose}: expected pools apart from the addresses of routers" if pool else None


def _check_pools(found: Found, problems: Problems) -> None:
    seen: list[IPv6Network | IPv4Network] = []
    for key, field in POOLS.items():
        for address, whose in _addresses_of_routers(found):
            if expected := router_in_a_pool(found.get(field) or (), address, whose):
                problems.add(("anchor", key), expected)
        for one in found.get(field) or ():
            for other in seen:
                if one.version == other.version and one.overlaps(other):
                    expected = f"{one} overlaps {other}: expected disjoint pools"
                    problems.add(("anchor", key), expected)
            seen.append(one)
    length = found.get("anchoring.delegated_length", DELEGATED_LENGTH)
    for one in found.get("anchoring.delegated_prefixes") or ():
        if length and one.prefixlen > length:
            expected = f"{one} holds no prefix of /{length}: expected a shorter one, or another delegated_length"
            problems.add(("anchor", "delegated_prefixes"), expected)


def _addresses_of_routers(found: Found) -> Iterator[tuple[Address, str]]:
    """Each with whose it is."""
    for key in ("address", "ipv4_address"):
        if found.get(key):
            yield found[key], f"[underlay] {key} of this router"
    for peer in found.get("peers", ()):
        for _, address in _addresses(peer):
            yield address, f"of peer {peer['name']}"
    for uplink in found.get("uplinks", ()):
        if uplink.get("address"):
            yield uplink["address"], f"of uplink {uplink['interface']}"


def _check_lifetimes(found: Found, problems: Problems) -> None:
    valid = found.get("valid_lifetime", VALID_LIFETIME)
    preferred = found.get("preferred_lifetime", PREFERRED_LIFETIME)
    if valid and preferred and preferred > valid:
        key = "preferred_lifetime" if "preferred_lifetime" in found else "valid_lifetime"
        expected = f"preferred {preferred} s, valid {valid} s: expected preferred not to be longer"
        problems.add(("anchor", key), expected)
    suspect = found.get("paths.suspect_after", PathCare().suspect_after)
    down = found.get("paths.down_after", PathCare().down_after)
    if suspect and down and suspect > down:
        key = "down_after" if "paths.down_after" in found else "suspect_after"
        expected = f"suspect after {suspect}, down after {down}: expected suspect not to be later"
        problems.add(("paths", key), expected)
    busy = found.get("paths.interval", PathCare().interval)
    idle = found.get("paths.idle_interval", PathCare().idle_interval)
    if busy and idle and idle < busy:
        key = "idle_interval" if "paths.idle_interval" in found else "interval"
        expected = f"idle {idle:g} s, with traffic {busy:g} s: expected idle paths not to be probed more often"
        problems.add(("paths", key), expected)
    refresh, lifetime = found.get("gateway.refresh_before"), found.get("binding_lifetime", BINDING_LIFETIME)
    if refresh and lifetime and refresh >= lifetime:
        expected = f"{refresh:g} s before the end of {lifetime} s: expected less than [binding] lifetime"
        problems.add(("gateway", "refresh_before"), expected)


def _check_access(names: Sequence[str], problems: Problems) -> None:
    for twice in sorted({item for item in names if names.count(item) > 1}):
        problems.add(("access", "interfaces"), f"{twice} is named twice: expected each once")
    if LOOPBACK in names:
        problems.add(("access", "interfaces"), f"{LOOPBACK}: no node is there: expected a link with nodes")


def _check_keys(found: Found, problems: Problems) -> None:
    is_gre = getattr(found.get("encapsulation"), "value", "") == "gre"
    for table, field in (("anchor", "anchoring.gre_keys"), ("gateway", "gateway.gre_keys")):
        if found.get(field) and not is_gre:
            problems.add((table, "gre_keys"), 'keys are for GRE alone: expected [underlay] encapsulation = "gre" too')


# --- peers ---


def _check_peers(found: Found, problems: Problems, own_name: str) -> None:
    required = found.get("authentication", Authentication.REQUIRED) is Authentication.REQUIRED
    names: set[str] = set()
    owners: dict[Address, str] = {
        item: f"is [underlay] {key} of this router" for key in ("address", "ipv4_address") if (item := found.get(key))
    }
    roaming: set[int] = set()
    for at, item in enumerate(found.get("peers", ())):
        if item["name"] and item["name"] in names:
            problems.add(("peer", at, "name"), f'"{item["name"]}" is taken: expected another name')
        elif item["name"] and item["name"] == own_name:
            problems.add(("peer", at, "name"), f'"{own_name}" is this router itself: expected another name')
        for key, own in _addresses(item):
            if own in owners:
                problems.add(("peer", at, key), f"{own} {owners[own]}: expected an address of its own")
            owners.setdefault(own, f"belongs to {item['name'] or 'a peer'} above")
        if not {"address", "addresses"} & item.keys():
            _check_roaming(at, item, roaming, problems)
        if required and "key" not in item:
            cure = 'missing: expected key or key_file, or [security] authentication = "none"'
            problems.add(("peer", at, "key"), cure)
        names.add(item["name"])


def _addresses(peer: Found) -> Iterator[tuple[str, Address]]:
    if peer.get("address"):
        yield "address", peer["address"]
    for address in peer.get("addresses") or ():
        if address != peer.get("address"):
            yield "addresses", address


def _check_roaming(at: int, item: Found, roaming: set[int], problems: Problems) -> None:
    """A peer that comes from any address is known by its spi alone."""
    if "spi" not in item:
        expected = "missing: expected in every [[peer]] but those known by their spi, which come from any address"
        problems.add(("peer", at, "address"), expected)
    elif item["spi"] in roaming:
        expected = f"{item['spi']} is of a peer above that has no address either: expected another number"
        problems.add(("peer", at, "spi"), expected)
    roaming.add(item.get("spi") or 0)


def _peer_names(found: Found) -> list[str]:
    return [item["name"] for item in found.get("peers", ()) if item["name"]]


# --- nodes ---


def _check_nodes(found: Found, problems: Problems) -> None:
    seen: set[bytes] = set()
    told: dict[str, set[str]] = {}  # node -> what is laid down about it
    for at, item in enumerate(found.get("nodes", ())):
        link_layer, node = item.get("link_layer"), item["node"]
        if link_layer and link_layer in seen:
            expected = "has an identifier already: expected an address no node above has"
            problems.add(("node", at, "link_layer"), expected)
        if link_layer and node == "":
            problems.add(("node", at, "link_layer"), "expected none: the profile is of every node")
        seen.add(link_layer or b"")
        _check_profile(at, item, told.setdefault(node, set()), problems)
        for gateway in item.get("gateways") or ():
            if gateway not in _peer_names(found):
                problems.add(("node", at, "gateways"), f"{gateway} is no [[peer]]: expected names of them")


def _check_profile(at: int, item: Found, told: set[str], problems: Problems) -> None:
    """A node with several interfaces has a table for each; what is laid down about it stands in one of them."""
    own = item.keys() - {"node", "link_layer"}
    for key in sorted(own & told):
        problems.add(("node", at, key), "is told of this node above: expected it once")
    told |= own
    if "link_layer" not in item:
        if "a table" in told and not own:
            problems.add(("node", at, "id"), "is told above: expected each node once")
        told.add("a table")


# --- flows ---


def refuse_numbers(flows: Sequence[Found], problems: Problems) -> None:
    """Packets that are striped or doubled carry sequence numbers, and tunnels here do not. flows: [[flow]] tables."""
    for at, item in enumerate(flows):
        if item.get("spread") in NUMBERED:
            expected = f'"{item["spread"].value}" needs sequence numbers: expected [underlay] encapsulation = "gre"'
            problems.add(("flow", at, "spread"), f"{expected}, at both ends")


# --- what only a MAG has ---


def _check_uplinks(found: Found, labels: Labels, problems: Problems) -> None:
    seen: dict[str, set[Any]] = {"interface": set(), "binding_id": set(), "address": set()}
    for at, item in enumerate(found.get("uplinks", ())):
        item = {"binding_id": at + 1, "address": None} | item
        for field, key in (("interface", "interface"), ("binding_id", "bid"), ("address", "address")):
            if item[field] and item[field] in seen[field]:
                problems.add(("uplink", at, key), f"{item[field]} is of an uplink above: expected another")
            seen[field].add(item[field])
        if item["interface"] == LOOPBACK:
            problems.add(("uplink", at, "interface"), f"{LOOPBACK} leads nowhere: expected a WAN interface")
        if item["interface"] and item["interface"] in (found.get("interfaces") or ()):
            expected = f"{item['interface']} is an access link: expected an interface that leads to the anchor"
            problems.add(("uplink", at, "interface"), expected)
        if item.get("label") is not None:
            try:
                labels.number(item["label"])
            except ValueError as expected:
                problems.add(("uplink", at, "label"), str(expected))
    _check_last_bid(found.get("uplinks", ()), problems)


def _check_last_bid(uplinks: Sequence[Found], problems: Problems) -> None:
    """An uplink that says no BID has that of its place."""
    late = [at for at, item in enumerate(uplinks) if at >= LAST_BID and "binding_id" not in item]
    if late:
        expected = f"by its place it would be {late[0] + 1}: expected at most {LAST_BID} uplinks, or a bid that is free"
        problems.add(("uplink", late[0], "bid"), expected)


def _check_sites(found: Found, problems: Problems) -> None:
    links = found.get("interfaces") or ()
    seen: set[str] = set()
    for at, item in enumerate(found.get("sites", ())):
        if item["node"] and item["node"] in seen:
            problems.add(("site", at, "node"), f"{item['node']} is of a site above: expected another")
        seen.add(item["node"])
        if item.get("delegated") is False and item.get("delegated_interface"):
            expected = "delegated = false says that there is nothing to advertise: expected one of the two"
            problems.add(("site", at, "delegated_interface"), expected)
        for key in ("interface", "delegated_interface"):
            if item.get(key) and item[key] not in links:
                expected = f"{item[key]} is no access link: expected one of [access] interfaces"
                problems.add(("site", at, key), expected)


# --- what a role cannot do without ---


def _check_mar(found: Found, problems: Problems) -> None:
    if found.get("address") and not isinstance(found["address"], IPv6Address):
        problems.add(("underlay", "address"), "expected an IPv6 address: a MAR has no other underlay")
    for at, item in enumerate(found.get("peers", ())):
        if "address" not in item and "spi" in item:
            problems.add(("peer", at, "address"), "missing: expected one: the peers of a MAR do not roam")
        elif item.get("address") and not isinstance(item["address"], IPv6Address):
            problems.add(("peer", at, "address"), "expected an IPv6 address: a MAR has no other underlay")
    for at, item in enumerate(found.get("nodes", ())):
        if "link_layer" not in item:
            expected = "missing: expected in every [[node]] of a MAR, which knows nodes by it"
            problems.add(("node", at, "link_layer"), expected)
    if found.get("cmd.peer"):
        _check_follower(found, problems)


def _check_follower(found: Found, problems: Problems) -> None:
    """A MAR has a store in common with the others, or a CMD."""
    cmd, names = found["cmd.peer"], _peer_names(found)
    if cmd not in names:
        here = ", ".join(names) or "there is none"
        problems.add(("cmd", "peer"), f"{cmd} is no [[peer]]: expected one of: {here}")
    nodes = [item["node"] for item in found.get("nodes", ())]
    for at, node in enumerate(nodes):
        if node and node in nodes[:at]:
            expected = f"{node} has another one above: expected one, as a CMD knows one interface of a node"
            problems.add(("node", at, "link_layer"), expected)
    if "store" in found:
        problems.add(("store", "url"), "there is [cmd] peer too: expected one of them, as either knows the nodes")
    if found.get("cmd.mode") is CmdMode.LOCATOR and len(names) == 1:
        expected = '"locator" has MARs answer each other: expected the other MARs among the [[peer]]s too'
        problems.add(("cmd", "mode"), expected)


def _check_cmd(found: Found, problems: Problems) -> None:
    if found.get("address") and not isinstance(found["address"], IPv6Address):
        problems.add(("underlay", "address"), "expected an IPv6 address: the options of RFC 8885 have no other")
    for at, item in enumerate(found.get("peers", ())):
        if not isinstance(item.get("address"), IPv6Address | None) or ("address" not in item and "spi" in item):
            expected = "expected an IPv6 address: the MARs of a CMD are known by theirs"
            problems.add(("peer", at, "address"), expected)
    if found.get("cmd.peer"):
        problems.add(("cmd", "peer"), "expected none: this is the CMD itself")


def _check_lma(found: Found, problems: Problems) -> None:
    if "prefixes" not in found or found["prefixes"] == ():
        expected = 'missing: an LMA needs pools of home network prefixes, such as ["2001:db8:1000::/48"]'
        problems.add(("anchor", "prefixes"), expected)
    if not found.get("peers", ()) and found.get("authentication", Authentication.REQUIRED) is Authentication.REQUIRED:
        problems.doubt(("peer",), "there is no [[peer]]: no gateway can register a node")
    if found.get("anchoring.known_nodes_only") and not any(item["node"] for item in found.get("nodes", ())):
        problems.doubt(("anchor", "known_nodes_only"), "there is no [[node]] with a name: no node is served")


def _check_mag(found: Found, problems: Problems) -> None:
    anchor = found.get("gateway.anchor", "")
    peers = found.get("peers", ())
    names = _peer_names(found)
    here = f"one of: {', '.join(names)}" if names else "there is no [[peer]]"
    if anchor == "":
        problems.add(("gateway", "anchor"), f"missing: a MAG needs the name of the [[peer]] that is its LMA: {here}")
    elif anchor and anchor not in names:
        problems.add(("gateway", "anchor"), f"{anchor} is no [[peer]]: expected {here if names else 'one: ' + here}")
    for at, item in enumerate(peers):
        if item["name"] == anchor and not any(True for _ in _addresses(item)) and "spi" in item:
            problems.add(("peer", at, "address"), "missing: expected the address of the LMA")
        elif item["name"] == anchor:
            _check_ways(found.get("uplinks", ()), {address.version for _, address in _addresses(item)}, problems)
    if not found.get("interfaces", ()) and not found.get("sites", ()) and found.get("interfaces", ()) is not None:
        problems.doubt(("access", "interfaces"), "there is none, and no [[site]]: there is nobody to register")


def _check_ways(uplinks: Sequence[Found], versions: set[int], problems: Problems) -> None:
    """versions: of the addresses of the LMA."""
    for at, item in enumerate(uplinks):
        address = item.get("address")
        if address and versions and address.version not in versions:
            expected = f"the LMA has no IPv{address.version} address: expected another family, or one more of the LMA"
            problems.add(("uplink", at, "address"), expected)


NEEDS = {RoleName.MAR: _check_mar, RoleName.LMA: _check_lma, RoleName.MAG: _check_mag, RoleName.CMD: _check_cmd}
