"""Asking the anchor: numbers, timestamps, repetition and its bounds for the updates of a gateway (RFC 5213 6.9.4).

An update is repeated with a fresh timestamp and number, waiting twice as long each time, and never more than three
times a second for one registration. Ending a registration is said once.
"""

from signaling import flow_bindings
from signaling.actions import Action, TunnelEnd
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.iana import HandoffIndicator
from signaling.pacing import INITIAL_BINDACK_TIMEOUT, MAX_BINDACK_TIMEOUT, not_before
from signaling.pmip.binding_update_list import (
    BindingUpdateList,
    Multipath,
    Question,
    Registration,
    RegistrationKey,
    Service,
    Stage,
    Step,
)
from signaling.pmip.proxy_update import proxy_update
from signaling.pmip.uplinks import UplinkPath
from signaling.settings import Clock, MagSettings
from signaling.wire.options.option import Option

NOT_CHANGED = HandoffIndicator.HANDOFF_STATE_NOT_CHANGED
UNKNOWN = HandoffIndicator.HANDOFF_STATE_UNKNOWN
SAME_INTERFACE = HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE


def tunnel_of(item: Registration) -> TunnelEnd:
    """The way to the anchor by the path of a registration."""
    path = item.path
    return TunnelEnd(
        remote=path.anchor,
        local=path.source,
        port=item.data_port,
        key_in=item.key_in,
        key_out=item.key_out,
        binding_id=path.binding_id or 1,
        label=path.label,
        weight=path.weight,
    )


class UpdateSender:
    """The updates of one gateway, and when each registration has to be looked at again."""

    def __init__(self, settings: MagSettings, door: Door, clock: Clock, entries: BindingUpdateList) -> None:
        self.settings = settings
        self.deadlines: Deadlines[RegistrationKey] = Deadlines()
        self.last_number: int | None = None  # Sequence #, 16 bits
        self.policies = dict(settings.policies)  # flow rules by name, as they are now
        self._door = door
        self._clock = clock
        self._entries = entries
        self._last_key = 0  # GRE, 32 bits

    def ask(
        self, item: Registration, now: float, *, handoff: int, retry_after: float | None = None, bulk: bool = False
    ) -> list[Action]:
        """Ask for a registration or its refresh, and for the answer again after retry_after (s).

        Too often: asked as soon as that is allowed. bulk: for all paths of the session.
        """
        item.step(Step.ASKED)
        item.taken_back = False
        again = not_before(item.sent, now)
        if again is not None:
            self.deadlines.set(item.key, again)
            return []
        item.retry_after = retry_after or item.session.first_retry or INITIAL_BINDACK_TIMEOUT
        self.deadlines.set(item.key, now + item.retry_after)
        question = self._question(item, self.settings.binding_lifetime, handoff, bulk=bulk)
        return [self._send(item, question, item.path, now)]

    def ask_again(self, item: Registration, now: float, *, handoff: int) -> list[Action]:
        """The same question, waiting twice as long for its answer."""
        longest = item.session.last_retry or MAX_BINDACK_TIMEOUT
        return self.ask(item, now, handoff=handoff, retry_after=min(item.retry_after * 2, longest))

    def take_back(self, item: Registration, by: UplinkPath, now: float) -> list[Action]:
        """End a registration, by its own path or another one. Not repeated: what is lost ends by itself."""
        self.deadlines.set(item.key, now + INITIAL_BINDACK_TIMEOUT)
        question = self._question(item, 0, UNKNOWN, bulk=False)
        return [self._send(item, question, by, now)]

    def may_send(self, item: Registration, now: float) -> bool:
        """Whether another update of a registration is allowed now."""
        return not_before(item.sent, now) is None

    def release_ipv4(self, item: Registration, now: float) -> list[Action]:
        """Take back the IPv4 home address of a session, and no path of it (RFC 5844 3.2.3.3); again until answered."""
        again = item.question is not None and item.question.releases
        item.retry_after = min(item.retry_after * 2, MAX_BINDACK_TIMEOUT) if again else INITIAL_BINDACK_TIMEOUT
        self.deadlines.set(item.key, now + item.retry_after)
        question = Question(
            lifetime=0,
            handoff=NOT_CHANGED,
            technology=item.session.technology,
            services=Service.IPV4,
            named=False,
            multipath=False,
            bulk=False,
            gre=False,
            flows=(),
            releases=True,
        )
        return [self._send(item, question, item.path, now)]

    def _question(self, item: Registration, lifetime: int, handoff: int, *, bulk: bool) -> Question:
        session = item.session
        multipath = bool(item.path.binding_id) and session.multipath is not Multipath.OFF
        if session.gre and item.key_in is None:
            self._last_key = self._last_key % 0xFFFFFFFF + 1
            item.key_in = self._last_key
        return Question(
            lifetime=lifetime,
            handoff=handoff,
            technology=session.technology,
            services=session.services,
            named=bool(session.prefixes),
            multipath=multipath,
            bulk=bulk and multipath,
            gre=session.gre and lifetime > 0,  # RFC 5845 4.2: not when it ends
            flows=self.flows(item, ends=lifetime == 0) if multipath else (),
        )

    def flows(self, item: Registration, *, ends: bool = False) -> tuple[Option, ...]:
        """The flows over the paths that are registered, and this one unless it ends."""
        session = item.session
        rules = self.policies.get(session.policy, ())
        stands = {other.path.binding_id: other for other in session.of(Stage.REGISTERED) if other is not item}
        if not ends:
            stands[item.path.binding_id] = item
        ways = [tunnel_of(stands[number]) for number in session.registrations if number in stands]
        return flow_bindings.options_of(rules, ways) if rules and ways else ()

    def _send(self, item: Registration, question: Question, by: UplinkPath, now: float) -> Action:
        settings = self.settings
        item.sent.append(now)
        self.last_number = self._clock.next_number(self.last_number, now)
        self._entries.ask(item, self.last_number, question)
        update = proxy_update(
            item,
            question,
            by,
            gateway=settings.name,
            service=settings.services.get(item.session.node, ""),
            force_udp=settings.force_udp,
            timestamp=self._clock.stamp(now) if settings.use_timestamps else None,
        )
        # the Proxy-CoA that is signed is the one the update is about
        care_of = item.path.care_of if item.path.care_of.version == 6 else by.care_of
        return self._door.send(update, by.anchor, care_of=care_of, source=by.source)
