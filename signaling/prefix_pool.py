"""What an anchor may lend: home network prefixes, delegated prefixes, IPv4 addresses. Lend, hold back, take back.

    pools        |====|====|====|====|      equal blocks: /64 of home network prefixes, /56 to delegate, /32 of IPv4
    lent           x         x    x         what is taken is a set of numbers, the first address of each block

A block is lent to one node at a time. After its session it is not free at once: hosts may go on using it until the
valid lifetime they were told has passed, so the anchor holds it back and gives it back only then.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Generic, TypeVar

PREFIX_LENGTH = 64  # SLAAC needs 64 (RFC 4862 5.5.3 d)
HOST_LENGTH = 32  # of one IPv4 address

Network = TypeVar("Network", IPv4Network, IPv6Network)


class Pool(Generic[Network]):
    """Blocks of one length, of one family; the longest unused comes first. reserved: never lent."""

    def __init__(self, pools: Sequence[Network], length: int, *, reserved: Iterable[Network] = ()) -> None:
        self.pools: tuple[Network, ...] = tuple(pools)
        self._length = length
        self._spans = tuple((int(pool.network_address), int(pool.broadcast_address)) for pool in pools)
        self._fresh: Iterator[Network] = self._walk()
        self._taken: set[int] = set()
        self._returned: deque[Network] = deque()
        self._reserved = {int(block.network_address) for block in reserved if block in self}
        self._taken |= self._reserved

    def __contains__(self, block: Network) -> bool:
        return block.prefixlen == self._length and self._covers(int(block.network_address))

    def __len__(self) -> int:
        """Number of blocks that are lent or held back."""
        return len(self._taken) - len(self._reserved)

    def lend(self) -> Network | None:
        """A block nobody has, or None when all are lent: one never used if there is any, else the longest unused."""
        for block in self._fresh:
            if self.claim(block):
                return block
        while self._returned:
            returned = self._returned.popleft()
            if self.claim(returned):
                return returned
        return None

    def claim(self, block: Network) -> bool:
        """Mark a block as lent, as it was before a restart. False: it is not ours, or lent already."""
        number = int(block.network_address)
        if number in self._taken or block.prefixlen != self._length or not self._covers(number):
            return False
        self._taken.add(number)
        return True

    def give_back(self, block: Network) -> None:
        """The block may be lent again; unless it is reserved, or was never one of the pool."""
        number = int(block.network_address)
        if block in self and number in self._taken and number not in self._reserved:
            self._taken.remove(number)
            self._returned.append(block)

    def _covers(self, number: int) -> bool:
        for start, end in self._spans:  # a generator takes three times as long
            if start <= number <= end:
                break
        else:
            return False
        return True

    def _walk(self) -> Iterator[Network]:
        for pool in self.pools:
            yield from pool.subnets(new_prefix=self._length)


class PrefixPool(Pool[IPv6Network]):
    """The home network prefixes one anchor may lend."""

    def __init__(self, pools: Sequence[IPv6Network], *, reserved: Iterable[IPv6Network] = ()) -> None:
        super().__init__(pools, PREFIX_LENGTH, reserved=reserved)


class Ipv4Pool(Pool[IPv4Network]):
    """IPv4 home addresses, /32 each. The first host address of a pool is the default router of its nodes (RFC 5844)."""

    def __init__(self, pools: Sequence[IPv4Network], *, reserved: Iterable[IPv4Network] = ()) -> None:
        ends = (address for pool in pools for address in _never_a_node(pool))
        super().__init__(pools, HOST_LENGTH, reserved=(*map(IPv4Network, ends), *reserved))

    def subnet(self, address: IPv4Address) -> IPv4Network:
        """The pool an address is of; an address of no pool is a subnet of its own."""
        return next((pool for pool in self.pools if address in pool), IPv4Network(address))

    def router(self, address: IPv4Address) -> IPv4Address | None:
        """The default router of a node with this address; None: no pool has one for it."""
        subnet = self.subnet(address)
        return subnet.network_address + 1 if subnet.num_addresses > 1 else None


def _never_a_node(pool: IPv4Network) -> set[IPv4Address]:
    """The network's own address, its router and its broadcast address."""
    return {pool.network_address, pool.network_address + 1, pool.broadcast_address}
