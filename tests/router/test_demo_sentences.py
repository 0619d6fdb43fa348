"""What the demos say of the events of their routers."""

import pytest

from router.demo import mar_play, proxy_play
from router.demo.handover import Sentences
from router.driver import PATHS

AT_A_NODE = {"native", "split", "held", "closed"}  # nothing goes through a tunnel there


@pytest.mark.parametrize("sentences", [mar_play.SENTENCES, proxy_play.SENTENCES], ids=["mar", "pmip"])
def test_every_way_through_a_tunnel_has_a_sentence(sentences: Sentences) -> None:
    assert set(PATHS.values()) - AT_A_NODE <= set(sentences)


def test_a_router_that_gives_packets_back_is_told_with_prefix_and_anchor() -> None:
    event = {"event": "back-to-anchor", "prefix": "2001:db8:1000::/64", "peer": "2001:db8:ff:1::1"}
    told = mar_play.SENTENCES["back-to-anchor"](event)
    assert told == "gives what still comes for 2001:db8:1000::/64 back to mar1"
