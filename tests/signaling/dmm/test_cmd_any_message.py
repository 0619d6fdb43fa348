"""Whatever a router of the domain says, with the right key and in any order, a CMD and the others go on.

The number in the name of a failing test is the seed.
"""

import random
from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.iana import BindingAckFlag, BindingUpdateFlag, Status
from signaling.settings import CmdMode
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.maar import DlifLinkLayerAddress, DlifLinkLocalAddress, PreviousMaar, ServingMaar
from signaling.wire.options.prefix import AnchoredPrefix, HomeNetworkPrefix, LocalPrefix
from signaling.wire.options.time import Timestamp
from tests.signaling.dmm.cmd_world import CMD, DISTRIBUTED, CmdWorld, journey

PREFIXES = [IPv6Network(f"2001:db8:{number}00:{at}::/64") for number in (1, 2, 3) for at in (0, 1)]
MESSAGES = 100


class Babble:
    """Updates and acknowledgements that make sense by chance."""

    def __init__(self, seed: int, world: CmdWorld) -> None:
        self.random = random.Random(seed)
        self.world = world
        self.places = ("mar1", "mar2", "mar3", CMD)

    def options(self) -> dict[str, Any]:
        pick, address = self.random.choice, self.world.address[self.random.choice(self.places)]
        some = {
            "anchored": AnchoredPrefix(prefix=pick(PREFIXES)),
            "local": LocalPrefix(prefix=pick(PREFIXES)),
            "previous": PreviousMaar(address=address, prefix=pick(PREFIXES)),
            "serving": ServingMaar(address=address),
            "dlif": DlifLinkLocalAddress(address=address),
            "dlif_too": DlifLinkLayerAddress(address=bytes(6)),
            "handoff": HandoffIndicatorOption(indicator=self.random.randrange(7)),
            "timestamp": pick((None, Timestamp(value=self.world.stamp(ago=pick((0.0, 0.1, -0.1, 5.0)))))),
            "link_layer": None,
            "prefix": pick((None, HomeNetworkPrefix(prefix=IPv6Network("::/0")))),
        }
        return {key: value for key, value in some.items() if self.random.random() < 0.2}

    def say(self) -> None:
        source, destination = self.random.sample(self.places, 2)
        flags = self.random.choice((DISTRIBUTED, DISTRIBUTED, DISTRIBUTED & ~BindingUpdateFlag.DISTRIBUTED_MOBILITY))
        fixed = {"lifetime": self.random.choice((0, 4, 300, 65535 * 4)), "sequence_number": self.random.randrange(9)}
        prefixes = self.random.sample(PREFIXES, self.random.choice((0, 1, 1, 1, 2, 6)))
        node = self.random.choice(("mn1", "mn2"))
        update = self.world.update(node, *prefixes, **{"flags": flags} | fixed | self.options())
        if self.random.random() < 0.6:
            self.world.say(update, source, destination)
            return
        ack = BindingAck(
            status=self.random.choice((*Status, 200)),
            flags=BindingAckFlag.PROXY_REGISTRATION | self.random.choice(tuple(BindingAckFlag)),
            sequence_number=self.random.choice((fixed["sequence_number"], *self.numbers(source, destination))),
            lifetime=fixed["lifetime"],
            options=update.options,
        )
        self.world.say(ack, source, destination)

    def numbers(self, source: str, destination: str) -> list[int]:
        """Of updates that have gone the other way lately."""
        return [update.sequence_number for update in self.world.updates_to(source, source=destination)[-3:]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)
def test_any_message_leaves_the_database_whole(mode: CmdMode, seed: int) -> None:
    world = journey("mar1", "mar2", world=CmdWorld(mode, peers_of_each_other=True))
    babble = Babble(seed, world)
    for _ in range(MESSAGES):
        babble.say()
        world.run(babble.random.choice((0.0, 0.01, 0.4, 2.0)))
        held = [(prefix, binding.node) for binding in world.cmd.database.bindings for prefix in binding.anchorages]
        assert len({prefix for prefix, _ in held}) == len(held)
        for prefix, node in held:
            binding = world.cmd.database.bindings.holder(prefix)
            assert binding is not None
            assert binding.node == node
    world.run(700.0)
    assert [binding.node for binding in world.cmd.database.bindings if binding.expires < world.now] == []
