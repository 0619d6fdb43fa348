"""The answers of an LMA leave: accepting ones with what was granted, refusing ones with a line for the operator."""

from signaling.actions import Action, Note, Send
from signaling.door import Door
from signaling.iana import Ipv4HomeAddressStatus, Status
from signaling.pmip.allotments import Allotments
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.proxy_ack import Granted, accepting, refusing
from signaling.pmip.registration_request import RegistrationRequest
from signaling.rate_limit import RateLimit
from signaling.settings import Clock, Counters
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.tunnel import GreKey


class Replies:
    """Of one LMA."""

    def __init__(self, door: Door, clock: Clock, counters: Counters) -> None:
        self._door = door
        self._clock = clock
        self._counters = counters
        self._words = RateLimit(rate=10.0, burst=50)  # about refusals: a MAG could fill the log with them

    def accept(
        self,
        request: RegistrationRequest,
        session: MobilitySession,
        allotments: Allotments,
        status: Status,
        lifetime: int,
        *,
        flows: tuple[FlowIdentification, ...] = (),
        gre: GreKey | None = None,
        handoff: bool = False,
    ) -> Send | Note:
        """The answer that gives a session what it has. lifetime: s; handoff: it came from another MAG."""
        address = session.ipv4_home
        if address is None:
            granted = Granted(session, flows=flows, gre=gre, handoff=handoff)
        else:
            pool = allotments.ipv4
            granted = Granted(session, pool.subnet(address).prefixlen, pool.router(address), flows, gre, handoff)
        return self._send(request, accepting(request, status, lifetime, granted))

    def refuse(
        self,
        request: RegistrationRequest,
        status: Status,
        now: float,
        *,
        ipv4_status: Ipv4HomeAddressStatus | None = None,
        last_sequence_number: int | None = None,
    ) -> list[Action]:
        """The answer that changes nothing, and a line about it."""
        self._counters[f"lma.refused.{status.name.lower().replace('_', '-')}"] += 1
        ack = refusing(
            request,
            status,
            our_timestamp=self._clock.timestamp(now),
            ipv4_status=ipv4_status,
            last_sequence_number=last_sequence_number,
        )
        answer = self._send(request, ack)
        if not self._words.allows(now):
            return [answer]
        fields = {"node": request.node, "peer": request.gateway or request.source, "status": status.name}
        return [Note("update-refused", fields), answer]

    def _send(self, request: RegistrationRequest, ack: BindingAck) -> Send | Note:
        # back to where it came from, even with an Alternate Care-of Address (RFC 5213 5.3.6)
        source = request.source
        return self._door.send(ack, source, care_of=source, port=request.port, source=request.local)
