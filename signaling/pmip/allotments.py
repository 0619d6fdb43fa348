"""What a session is given: home network prefixes, an IPv4 home address, delegated prefixes (RFC 5213, 5844, 7148).

    fixed in the profile  ->  named in the update  ->  any that is free         in this order, each family by itself

An allotment is made as a whole or not at all: what was taken for an update that is refused goes back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from signaling.iana import Ipv4HomeAddressStatus, Status
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import RegistrationRequest, key_of
from signaling.pmip.session_cache import SessionCache
from signaling.prefix_pool import PREFIX_LENGTH, Ipv4Pool, Pool, PrefixPool
from signaling.settings import LmaSettings, NodeProfile, Prefix, Sharing
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest

HOST = 128  # length of the prefix of one address


@dataclass(slots=True)
class Allotment:
    """What a session gets, or why it gets nothing."""

    prefixes: tuple[IPv6Network, ...] = ()
    ipv4_home: IPv4Address | None = None
    delegated: tuple[Prefix, ...] = ()
    refused: Status | None = None
    ipv4_refused: Ipv4HomeAddressStatus | None = None  # for the reply option, when that was the reason


class Allotments:
    """The pools of an LMA and who may have what of them."""

    def __init__(self, settings: LmaSettings, profiles: Iterable[NodeProfile], cache: SessionCache) -> None:
        profiles = tuple(profiles)
        addresses = [IPv4Network(it.ipv4_address) for it in profiles if it.ipv4_address is not None]
        self.prefixes = PrefixPool(settings.pools, reserved=[it for one in profiles for it in one.prefixes])
        self.ipv4 = Ipv4Pool(settings.ipv4_pools, reserved=addresses)
        blocks = [it for one in profiles for it in one.delegated]
        self.delegated = Pool(settings.delegated_pools, settings.delegated_length, reserved=blocks)
        self._cache = cache

    def delegates(self, profile: NodeProfile) -> bool:
        """Whether there is anything to delegate to this node (RFC 7148 5.2.2: else its options are ignored)."""
        return bool(self.delegated.pools or profile.delegated)

    def begin(self, request: RegistrationRequest, profile: NodeProfile) -> Allotment:
        """What a new session is given."""
        allotment = Allotment()
        if request.asks_ipv6:
            self._add_prefixes(allotment, request, profile)
        self._add_others(allotment, request, profile, None)
        return allotment

    def share(self, request: RegistrationRequest, profile: NodeProfile, sharer: MobilitySession) -> Allotment:
        """What a new session is given that has the prefixes of another one of the node, and its address."""
        allotment = Allotment()
        self._add_others(allotment, request, profile, sharer)
        if allotment.refused is None:
            allotment.prefixes = sharer.prefixes if request.asks_ipv6 else ()
            allotment.ipv4_home = allotment.ipv4_home or (sharer.ipv4_home if request.asks_ipv4 else None)
        return allotment

    def extend(self, request: RegistrationRequest, profile: NodeProfile, session: MobilitySession) -> Allotment:
        """What a session is given beyond what it has: a family or a delegated prefix it did not ask for before."""
        allotment = Allotment()
        if request.asks_ipv6 and not session.prefixes:
            self._add_prefixes(allotment, request, profile)
        self._add_others(allotment, request, profile, session)
        return allotment

    def release(self, allotment: Allotment) -> None:
        """It was not used: all of it goes back."""
        self._give_back(allotment.prefixes)
        if allotment.ipv4_home is not None:
            self.give_back_ipv4(allotment.ipv4_home)
        self.give_back_delegated(allotment.delegated)

    def claim(self, session: MobilitySession) -> None:
        """The session has these things since before a restart."""
        for prefix in session.prefixes:
            self.prefixes.claim(prefix if prefix.prefixlen == PREFIX_LENGTH else _block_of(prefix))
        if session.ipv4_home is not None:
            self.ipv4.claim(IPv4Network(session.ipv4_home))
        for delegated in session.delegated:
            if isinstance(delegated, IPv6Network):
                self.delegated.claim(delegated)

    def give_back_prefixes(self, node: str, prefixes: tuple[IPv6Network, ...]) -> None:
        """A session of the node does not have them any more. What others of its sessions share stays taken."""
        kept = {_block_of(prefix) for session in self._cache.of(node) for prefix in session.prefixes}
        self._give_back(block for block in dict.fromkeys(map(_block_of, prefixes)) if block not in kept)

    def give_back_ipv4(self, address: IPv4Address) -> None:
        """No session has this address any more."""
        block = IPv4Network(address)
        if block in self.ipv4 and not self._cache.at_ipv4(int(address)):
            self.ipv4.give_back(block)

    def give_back_delegated(self, prefixes: Iterable[Prefix]) -> None:
        """No session has these delegated prefixes any more."""
        for prefix in prefixes:
            if isinstance(prefix, IPv6Network):
                self.delegated.give_back(prefix)

    # --- home network prefixes ---

    def _add_prefixes(self, allotment: Allotment, request: RegistrationRequest, profile: NodeProfile) -> None:
        named = tuple(option.prefix for option in request.prefix_options if not option.all_zero)
        taken: list[IPv6Network] = []
        for prefix in dict.fromkeys(named):
            if not self._may_have(prefix, request.node, profile):
                self._give_back(taken)
                allotment.refused = Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
                return
            taken.append(prefix)
        if request.prefixes_wanted:
            chosen = self._choose(request.node, profile)
            if not chosen or any(self._another_has(prefix, request.node) for prefix in chosen):
                self._give_back(taken)
                allotment.refused = (
                    Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX if chosen else Status.INSUFFICIENT_RESOURCES
                )
                return
            taken += [prefix for prefix in chosen if prefix not in taken]
        allotment.prefixes = tuple(taken)

    def _may_have(self, prefix: IPv6Network, node: str, profile: NodeProfile) -> bool:
        if prefix in profile.prefixes:
            return not self._another_has(prefix, node)
        if prefix.prefixlen == HOST and profile.sharing is Sharing.SHARED_PREFIX:
            # an address of its own on this interface, of the prefix its interfaces have in common
            return any(prefix.subnet_of(it) for one in self._cache.of(node) for it in one.prefixes)
        return self.prefixes.claim(prefix)

    def _choose(self, node: str, profile: NodeProfile) -> tuple[IPv6Network, ...]:
        """Prefixes that its profile fixes, for its first session; else any one."""
        held = {prefix for session in self._cache.of(node) for prefix in session.prefixes}
        if profile.prefixes and held.isdisjoint(profile.prefixes):
            return profile.prefixes
        lent = self.prefixes.lend()
        return (lent,) if lent is not None else ()

    def _another_has(self, prefix: Prefix, node: str) -> bool:
        """Whether a session of another node has it, by whatever is laid down for both."""
        return any(session.node != node for session in self._cache.holding(key_of(prefix)))

    def _give_back(self, prefixes: Iterable[IPv6Network]) -> None:
        for prefix in prefixes:
            self.prefixes.give_back(prefix)

    # --- IPv4 home address and delegated prefixes ---

    def _add_others(
        self,
        allotment: Allotment,
        request: RegistrationRequest,
        profile: NodeProfile,
        session: MobilitySession | None,
    ) -> None:
        if allotment.refused is None and request.asks_ipv4 and (session is None or session.ipv4_home is None):
            self._add_ipv4(allotment, request, profile)
        if allotment.refused is None and request.delegations and self.delegates(profile):
            self._add_delegated(allotment, request, profile, session.delegated if session else ())
        if allotment.refused is not None:
            self.release(allotment)
            allotment.prefixes, allotment.ipv4_home, allotment.delegated = (), None, ()

    def _add_ipv4(self, allotment: Allotment, request: RegistrationRequest, profile: NodeProfile) -> None:
        option = request.get(Ipv4HomeAddressRequest)
        wanted = option.address if option is not None and int(option.address) else None
        fixed = profile.ipv4_address
        holders = self._cache.at_ipv4(int(fixed)) if fixed is not None else ()
        if holders:
            fixed = None  # for its first session
        of_another = any(session.node != request.node for session in holders)
        if wanted is None and not of_another:
            lent = None if fixed is not None else self.ipv4.lend()
            allotment.ipv4_home = fixed if lent is None else lent.network_address
            if allotment.ipv4_home is None:
                allotment.refused = Status.INSUFFICIENT_RESOURCES
                allotment.ipv4_refused = Ipv4HomeAddressStatus.REASON_UNSPECIFIED
        elif wanted is not None and (wanted == fixed or self.ipv4.claim(IPv4Network(wanted))):
            allotment.ipv4_home = wanted
        else:
            allotment.refused = Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS
            allotment.ipv4_refused = Ipv4HomeAddressStatus.ADMINISTRATIVELY_PROHIBITED

    def _add_delegated(
        self, allotment: Allotment, request: RegistrationRequest, profile: NodeProfile, had: tuple[Prefix, ...]
    ) -> None:
        taken: list[Prefix] = []
        for option in request.delegations:
            prefix = option.prefix
            if prefix in had or prefix in taken:
                continue
            if option.all_zero:
                # no pool of ours has IPv4 prefixes to delegate: such an option stays unanswered
                if prefix.version == 6 and not had:
                    taken += self._delegate(profile)
            elif self._another_has(prefix, request.node):
                allotment.refused = Status.REQUESTED_DMNP_IN_USE
            elif prefix in profile.delegated or (isinstance(prefix, IPv6Network) and self.delegated.claim(prefix)):
                taken.append(prefix)
            else:
                allotment.refused = Status.REQUESTED_DMNP_IN_USE
        allotment.delegated = tuple(taken)

    def _delegate(self, profile: NodeProfile) -> tuple[Prefix, ...]:
        free = tuple(prefix for prefix in profile.delegated if not self._cache.holding(key_of(prefix)))
        if free:
            return free
        lent = self.delegated.lend()
        return (lent,) if lent is not None else ()


def _block_of(prefix: IPv6Network) -> IPv6Network:
    """The /64 that a prefix is, or is part of."""
    return prefix.supernet(new_prefix=PREFIX_LENGTH) if prefix.prefixlen > PREFIX_LENGTH else prefix
