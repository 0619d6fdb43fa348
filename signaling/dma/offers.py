"""What each interface of a node is offered: the prefix of this router preferred, those it brought along deprecated."""

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING

from signaling.access_link import AccessLink, Offer
from signaling.actions import Action
from signaling.dma.anchor import Anchor
from signaling.dma.registrar import Registrar
from signaling.draining import Draining
from signaling.node_interface import Here, NodeInterface
from signaling.settings import Settings

if TYPE_CHECKING:
    from signaling.dmm.serving import CentralRegistrar


class Offers:
    """Of one router. told: what each interface that is here was told last."""

    def __init__(
        self,
        settings: Settings,
        access: AccessLink[NodeInterface],
        anchor: Anchor,
        registrar: "Registrar | CentralRegistrar",
        here: Here,
        draining: Draining,
        elsewhere: Mapping[str, Container[bytes]],
    ) -> None:
        """elsewhere: by node, the link-layer addresses of its interfaces that are at other routers."""
        self.told: dict[NodeInterface, list[Offer]] = {}
        self._settings = settings
        self._access = access
        self._anchor = anchor
        self._registrar = registrar
        self._here = here
        self._draining = draining
        self._elsewhere = elsewhere

    def changes(self, nodes: Iterable[str], now: float) -> list[Action]:
        """Advertise to those nodes whose offers differ from what they were told last; what is lost is withdrawn.

        A withdrawal stays among the offers as long as the node is here: any one advertisement may be lost.
        """
        actions: list[Action] = []
        for who in (who for node in nodes for who in self._here.of(node)):
            offers, before = self._of(who), self.told.get(who)
            kept = {offer.prefix for offer in offers}
            offers += [Offer(offer.prefix, 0, 0) for offer in before or () if offer.prefix not in kept]
            if offers == before:
                continue
            self.told[who] = offers
            actions += self._access.advertise(who, offers, now)
        return actions

    def again(self, who: NodeInterface, now: float, *, due: bool = False) -> list[Action]:
        """The same once more. due: as the time for it has come."""
        return self._access.advertise(who, self.told.get(who, ()), now, changed=False, due=due)

    def anew(self, now: float) -> list[Action]:
        """To all that are here, as what this router wants of them has changed."""
        actions: list[Action] = []
        for who in self._access.attached:
            gone = [offer for offer in self.told.get(who, ()) if not offer.valid_lifetime]
            self.told[who] = [*self._of(who), *gone]
            actions += self._access.advertise(who, self.told[who], now)
        return actions

    def to_all(self, now: float) -> list[Action]:
        """What they were told stands; something beside it has changed."""
        return [action for who, offers in self.told.items() for action in self._access.advertise(who, offers, now)]

    def farewell(self, who: NodeInterface) -> list[Action]:
        """This router goes: all it offers is deprecated."""
        deprecated = [Offer(offer.prefix, offer.valid_lifetime, 0) for offer in self._of(who)]
        return self._access.farewell(who, deprecated)

    def forget(self, who: NodeInterface) -> None:
        """It comes anew, or has left."""
        self.told.pop(who, None)

    def _is_adopted(self, who: NodeInterface, lent_to: bytes) -> bool:
        """Whether what was given to that interface is this one's, as that one is nowhere."""
        known = any(lent_to) and any(who.link_layer)
        return known and lent_to != who.link_layer and lent_to not in self._elsewhere.get(who.node, ())

    def _of(self, who: NodeInterface) -> list[Offer]:
        """What another interface of the node has now is offered too: its addresses are on this one."""
        valid = self._settings.valid_lifetime
        preferred = 0 if self._draining.active else self._settings.preferred_lifetime
        own = [
            Offer(prefix, valid, preferred, self._is_adopted(who, lent_to))
            for prefix, lent_to in self._anchor.lent(*who)
        ]
        preferred = 0 if own else preferred
        brought = [
            Offer(item.prefix, min(valid, item.valid_lifetime), preferred, self._is_adopted(who, item.lent_to))
            for item in self._registrar.visited(*who)
            if not item.ordered
        ]
        return own + brought + [Offer(prefix, valid, 0) for prefix in self._anchor.away(*who)]
