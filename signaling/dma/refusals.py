"""Why one MAR refuses an update of another one, in words: a status says less than is known, or says it of an LMA."""

from signaling.dma.binding_cache import Entry
from signaling.dma.session import State
from signaling.iana import Status

OF_ANOTHER_INTERFACE = Status.ADMINISTRATIVELY_PROHIBITED  # which has the prefix, so that it stays there
NOT_FOR_IT = Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
RELEASED = "it was released, as nobody used it: the node has others by now"
WHY = {
    OF_ANOTHER_INTERFACE: "another interface of the node has it: it stays there",
    NOT_FOR_IT: "it was released, or is not lent to this node or this interface of it",
    Status.NOT_LMA_FOR_THIS_MOBILE_NODE: "no prefix is lent to this node there",
    Status.INSUFFICIENT_RESOURCES: "as many routers take flows of it as there can be",
}


def at_the_anchor(status: Status, entry: Entry | None) -> dict[str, object]:
    """Field "why" of a note about a refusal, if there is more to say. entry: what the update is about."""
    released = status is NOT_FOR_IT and entry is not None and entry.state is State.RELEASED
    return {"why": RELEASED} if released else _field(WHY.get(status))


def at_a_visited_router(status: int) -> dict[str, object]:
    """The same, of an answer."""
    why = next((words for known, words in WHY.items() if known == status), None)
    return _field(why and f"the anchor says: {why}")


def _field(why: str | None) -> dict[str, object]:
    return {"why": why} if why else {}
