"""Updates that say again what was said before, but for number and time: they are not read and judged anew.

Nearly all a busy anchor hears is extensions, and a MAG words each as it did the last. So of the last extension of a
session a digest is kept, of all but what differs each time. If its answer had the same options as the update, as it
has when these stand in the order of RFC 5213, the next answer is made from the update itself:

    update   Payload Proto, length, type 5 | checksum | number        | flags | lifetime | options, time ...   | MAC
    answer   Payload Proto, length, type 6 | checksum | status, flags | number | lifetime | options, time ...  | MAC
    digest   --------------------------------                         ------------------------------      ---

Nothing is refused here, and nothing decided: what is not found, or does not pass, goes the long way. What is kept of a
session is forgotten as soon as anything of it changes that is durable.
"""

from hashlib import blake2b
from typing import NamedTuple

from signaling.iana import AuthenticationSubtype, BindingAckFlag, OptionType, Status
from signaling.pmip.mobility_session import MobilitySession
from signaling.wire.authentication import AUTHENTICATOR
from signaling.wire.binding_ack import BindingAck
from signaling.wire.codec import LIFETIME_UNIT

MAC = AUTHENTICATOR[AuthenticationSubtype.MN_HA]  # octets; it ends a message
MAC_BEGINS = bytes((OptionType.MOBILITY_MESSAGE_AUTHENTICATION, 5 + MAC, AuthenticationSubtype.MN_HA))
TIME = 8  # octets of a timestamp, RFC 5213 8.8
TIME_BEGINS = bytes((OptionType.TIMESTAMP, TIME))
OPTIONS = 12  # octets before them, in updates and in answers: so padding is the same too
ACCEPTS = bytes((Status.BINDING_UPDATE_ACCEPTED, BindingAckFlag.PROXY_REGISTRATION))
DIGEST = 16  # octets; 136 for the update itself would be a tenth of all that a session takes
MOST_PLACES = 4  # of the timestamp, in updates of one length: names of nodes before it are longer or shorter


class Repetition(NamedTuple):
    """An update that says what was said before."""

    session: MobilitySession
    octets: bytes
    timestamp: int

    @property
    def lifetime(self) -> int:
        """That it asks for, s."""
        return int.from_bytes(self.octets[10:12], "big") * LIFETIME_UNIT

    def answer(self, lifetime: int) -> bytearray:
        """The answer, but for its checksum and MAC. lifetime: s that are granted."""
        answer = bytearray(self.octets)
        answer[2] = BindingAck.TYPE
        answer[4:6] = b"\0\0"
        answer[6:8] = ACCEPTS
        answer[8:10] = self.octets[6:8]
        answer[10:12] = max(1, lifetime // LIFETIME_UNIT).to_bytes(2, "big")
        return answer


class RepeatedUpdates:
    """Sessions by what they said last; one update for each session, at most."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, MobilitySession] = {}
        self._places: dict[int, tuple[int, ...]] = {}  # length of updates -> where the timestamp may stand in them

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, octets: bytes) -> Repetition | None:
        """What an update repeats. It is not authenticated yet, and may be old."""
        for at in self._places.get(len(octets), ()):
            session = self._sessions.get(_digest(octets, at))
            if session is not None:
                return Repetition(session, octets, int.from_bytes(octets[at : at + TIME], "big"))
        return None

    def learn(self, session: MobilitySession, timestamp: int, octets: bytes, answer: bytes) -> None:
        """The session was extended by this update, and this was the answer; both are signed and have this timestamp."""
        self.forget(session)
        time = TIME_BEGINS + timestamp.to_bytes(TIME, "big")
        same_options = answer[OPTIONS:-MAC] == octets[OPTIONS:-MAC] and answer[6:8] == ACCEPTS
        # if it had the octets of the time twice, that would leave it open which are the time
        if not same_options or not _ends_with_mac(octets) or octets.count(time) != 1:
            return
        at = octets.index(time) + len(TIME_BEGINS)
        places = self._places.get(len(octets), ())
        if at not in places:
            if len(places) >= MOST_PLACES:
                return
            self._places[len(octets)] = (*places, at)
        session.repeated = _digest(octets, at)
        self._sessions[session.repeated] = session

    def forget(self, session: MobilitySession) -> None:
        """What it said is of no use any more."""
        if session.repeated and self._sessions.get(session.repeated) is session:
            del self._sessions[session.repeated]
        session.repeated = b""


def _digest(octets: bytes, time_at: int) -> bytes:
    kept = octets[:4] + octets[8:time_at] + octets[time_at + TIME : -MAC]
    return blake2b(kept, digest_size=DIGEST).digest()


def _ends_with_mac(octets: bytes) -> bool:
    return len(octets) == (octets[1] + 1) * 8 and octets[-MAC - 7 : -MAC - 4] == MAC_BEGINS
