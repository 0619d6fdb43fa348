"""Telling a router that bindings are no longer good: Binding Revocation (RFC 5846), the sending side.

The indication is repeated until it is acknowledged, a bounded number of times; what it announces is true either way.
Whoever has to know how it ended passes `on_done`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network

from signaling.actions import Action, Note
from signaling.dma.binding_cache import Entry
from signaling.door import Door
from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger, name_of
from signaling.reminders import Errand, Pace, Reminders
from signaling.settings import Address, Clock, Counters
from signaling.update_request import identifier_of
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

MAX_RETRIES = 1  # BRIMaxRetriesNumber, RFC 5846 11
FIRST_DELAY = 1.0  # s, InitMINDelayBRIs, RFC 5846 11
MAX_BRACK_TIMEOUT = 2.0  # s, RFC 5846 11
PACE = Pace(first_delay=FIRST_DELAY, longest_delay=MAX_BRACK_TIMEOUT, repeats=MAX_RETRIES)
PROXY = RevocationFlag.PROXY_BINDING
GONE = {RevocationStatus.SUCCESS, RevocationStatus.PARTIAL_SUCCESS, RevocationStatus.BINDING_DOES_NOT_EXIST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a revocation ended. ack: None if nobody answered."""

    indication: BindingRevocationIndication
    destination: Address
    ack: BindingRevocationAck | None

    @property
    def gone(self) -> bool:
        """Whether the peer says that it has the binding no more, or never had it."""
        return self.ack is not None and self.ack.status in GONE

    @property
    def still_attached(self) -> bool:
        """Whether the peer says that the node is there (status 132, RFC 5846 8.1)."""
        return self.ack is not None and self.ack.status == RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED


OnDone = Callable[[Outcome, float], list[Action]]  # told the time, monotonic s


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """The router that is told, at the Proxy-CoA of the path that the bindings use. source: our address for it."""

    address: Address
    port: int = 0
    source: Address | None = None


class Revoker:
    """Indications on their way, by sequence number."""

    def __init__(self, door: Door, clock: Clock, counters: Counters) -> None:
        self._counters = counters
        self._reminders: Reminders[BindingRevocationIndication] = Reminders(door, clock, PACE)
        self._on_done: dict[int, OnDone] = {}
        self._mute: set[Address] = set()  # they know no revocation
        self.deadlines = self._reminders.deadlines

    @property
    def reminders(self) -> Reminders[BindingRevocationIndication]:
        """Indications that nobody has answered yet."""
        return self._reminders

    @property
    def mute(self) -> set[Address]:
        """Routers that know no revocation."""
        return self._mute

    def expect(self, number: int, on_done: OnDone) -> None:
        """Call this when the indication with that number, which another process has sent, is done."""
        self._on_done[number] = on_done

    def revoke(self, entry: Entry, care_of: Address, *, different_access: bool, now: float) -> list[Action]:
        """Tell the router at care_of that it does not serve this prefix any more: the node was seen elsewhere."""
        trigger = (
            RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE
            if different_access
            else RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE
        )
        return self.revoke_session(entry.node, (entry.prefix,), trigger, Recipient(address=care_of), now)

    def revoke_session(
        self,
        node: str,
        prefixes: Iterable[IPv6Network],
        trigger: RevocationTrigger,
        to: Recipient,
        now: float,
        *,
        options: tuple[Option, ...] = (),
        on_done: OnDone | None = None,
    ) -> list[Action]:
        """A node's bindings with these prefixes are over; no prefixes: all it has there (RFC 5846 8.1).

        options: more that narrow it, as an Alternate Care-of Address.
        """
        named = tuple(HomeNetworkPrefix(prefix=prefix) for prefix in prefixes)
        return self._indicate(trigger, PROXY, (identifier_of(node), *named, *options), to, on_done, now)

    def revoke_ipv4(
        self,
        node: str,
        address: IPv4Address,
        trigger: RevocationTrigger,
        to: Recipient,
        now: float,
        *,
        on_done: OnDone | None = None,
    ) -> list[Action]:
        """A node's IPv4 home address is over, its prefixes are not (V flag, RFC 5846 8.1)."""
        flags = PROXY | RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY
        options = (identifier_of(node), Ipv4HomeAddressRequest(address=address, prefix_length=32))
        return self._indicate(trigger, flags, options, to, on_done, now)

    def revoke_peer(self, to: Recipient, now: float, *, on_done: OnDone | None = None) -> list[Action]:
        """All bindings of that router with us are over (G flag, trigger 128: no options at all, RFC 5846 8.1)."""
        flags = PROXY | RevocationFlag.GLOBAL
        return self._indicate(RevocationTrigger.PER_PEER_POLICY, flags, (), to, on_done, now)

    def revoke_realm(
        self,
        realm: str,
        to: Recipient,
        now: float,
        *,
        options: tuple[Option, ...] = (),
        on_done: OnDone | None = None,
    ) -> list[Action]:
        """Bindings of all nodes of exactly this realm are over (G flag, trigger 129, RFC 5846 8.1)."""
        flags = PROXY | RevocationFlag.GLOBAL
        trigger = RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY
        return self._indicate(trigger, flags, (identifier_of(f"@{realm}"), *options), to, on_done, now)

    def _indicate(
        self,
        trigger: RevocationTrigger,
        flags: RevocationFlag,
        options: tuple[Option, ...],
        to: Recipient,
        on_done: OnDone | None,
        now: float,
    ) -> list[Action]:
        number = None if to.address in self._mute else self._reminders.next_number(now)
        indication = BindingRevocationIndication(
            trigger=trigger, sequence_number=number or 0, flags=flags, options=options
        )
        if number is None:  # as many wait already as there are numbers, or nobody would understand it
            self._counters["revocation.mute" if to.address in self._mute else "revocation.too-many"] += 1
            return on_done(Outcome(indication=indication, destination=to.address, ack=None), now) if on_done else []
        if on_done is not None:
            self._on_done[number] = on_done
        errand = Errand(
            message=indication,
            number=number,
            destination=to.address,
            care_of=to.address,
            port=to.port,
            source=to.source,
        )
        return [self._reminders.send(errand, now)]

    def confirm(self, ack: BindingRevocationAck, source: Address, now: float) -> list[Action]:
        """An acknowledgement came in. One for an unknown sequence number is dropped (RFC 5846 6.2.2)."""
        errand = self._reminders.answered(ack.sequence_number, source)
        if errand is None:
            self._counters["revocation.unmatched"] += 1
            return []
        actions: list[Action] = []
        if ack.status == RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED:
            # it will register again with a newer timestamp if that is so; until then the newest attachment holds
            self._counters["revocation.still-attached"] += 1
            actions.append(Note("revocation-contested", {"peer": source}))
        elif ack.status in GONE:
            self._counters["revocation.confirmed"] += 1
        else:
            self._counters["revocation.refused"] += 1
            actions.append(Note("revocation-refused", {"peer": source, "status": name_of(ack.status)}))
        return actions + self._done(errand, ack, now)

    def wake(self, now: float) -> list[Action]:
        """Repeat what was not acknowledged, or give it up."""
        again, given_up = self._reminders.due(now)
        actions: list[Action] = [*again]
        for errand in given_up:
            self._counters["revocation.unanswered"] += 1
            actions += self._done(errand, None, now)
        return actions

    def not_understood(self, source: Address, now: float) -> list[Action]:
        """A router answered with a Binding Error: it knows no revocation (RFC 5846 6.2)."""
        actions: list[Action] = []
        for errand in self._reminders.abandon(source):
            self._mute.add(source)
            self._counters["revocation.not-understood"] += 1
            actions += self._done(errand, None, now)
        return actions

    def _done(
        self, errand: Errand[BindingRevocationIndication], ack: BindingRevocationAck | None, now: float
    ) -> list[Action]:
        on_done = self._on_done.pop(errand.number, None)
        if on_done is None:
            return []
        return on_done(Outcome(indication=errand.message, destination=errand.destination, ack=ack), now)

