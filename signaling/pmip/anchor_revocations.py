"""Revocation at an LMA (RFC 5846): the operator ends sessions, and MAGs hear of it; a MAG ends all of its own."""

from collections.abc import Callable

from signaling.actions import Action
from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger
from signaling.pmip.anchored_sessions import AnchoredSessions, reach_of
from signaling.pmip.mobility_session import MobilitySession
from signaling.revoker import Recipient, Revoker
from signaling.settings import Peer
from signaling.update_request import node_of
from signaling.wire.revocation import BindingRevocationIndication

GLOBAL_TRIGGERS = range(128, 250)  # RFC 5846 5.1, as its definitions read, not its text


class AnchorRevocations:
    """Ends sessions, and has the Revoker tell those who have to know."""

    def __init__(self, sessions: AnchoredSessions, revoker: Revoker) -> None:
        self._sessions = sessions
        self._revoker = revoker

    def revoke_node(self, node: str, now: float) -> list[Action]:
        """The operator ends all sessions of a node."""
        trigger = RevocationTrigger.ADMINISTRATIVE_REASON
        return self._revoke(
            [it for it in self._sessions.cache.of(node) if not it.leaving],
            lambda to: self._revoker.revoke_session(node, (), trigger, to, now),
            now,
        )

    def revoke_realm(self, realm: str, now: float) -> list[Action]:
        """The operator ends all sessions of the nodes of a realm; subdomains are not meant (RFC 5846 8.1)."""
        return self._revoke(
            [it for it in self._sessions.cache if it.node.rpartition("@")[2] == realm and not it.leaving],
            lambda to: self._revoker.revoke_realm(realm, to, now),
            now,
        )

    def _revoke(
        self, sessions: list[MobilitySession], tell: Callable[[Recipient], list[Action]], now: float
    ) -> list[Action]:
        """These end; each MAG that had some is told once."""
        told = {session.gateway: reach_of(session) for session in sessions}
        actions: list[Action] = []
        for session in sessions:
            actions += self._sessions.leave(session, now)
        for to in told.values():
            actions += tell(to)
        return actions

    def revoke_gateway(self, name: str, now: float) -> list[Action]:
        """The operator ends all sessions with a MAG: one message, without any option, says so."""
        reach = self._sessions.gateways.reach(name)
        actions = self._sessions.leave_gateway(name, now)
        if reach is None:
            return actions
        to = Recipient(address=reach.address, port=reach.port, source=reach.local)
        return actions + self._revoker.revoke_peer(to, now)

    def revoke_all(self, now: float) -> list[Action]:
        """The operator ends every session."""
        actions: list[Action] = []
        for name in list(self._sessions.gateways):
            actions += self.revoke_gateway(name, now)
        return actions

    def revoked_by(
        self, indication: BindingRevocationIndication, peer: Peer | None, now: float
    ) -> tuple[RevocationStatus, list[Action]]:
        """A MAG ends its sessions: only all of them at once (RFC 5846 8.2, 9.2)."""
        if not isinstance(indication.trigger, RevocationTrigger):
            return RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED, []
        if RevocationFlag.GLOBAL not in indication.flags or indication.trigger not in GLOBAL_TRIGGERS:
            return RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED, []
        authorised = peer is not None and indication.trigger is RevocationTrigger.PER_PEER_POLICY
        if not authorised or peer is None or node_of(indication) not in ("", peer.name):
            return RevocationStatus.GLOBAL_REVOCATION_NOT_AUTHORIZED, []
        return RevocationStatus.SUCCESS, self._sessions.leave_gateway(peer.name, now)
