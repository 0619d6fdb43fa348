"""Home network prefixes: lend a /64 to a node, hold it back after use, take it back.

A prefix is lent to one node at a time. After its session it is not free at once: hosts may go on using it until the
valid lifetime they were told has passed, so the anchor holds it back and gives it back only then.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Network

PREFIX_LENGTH = 64  # SLAAC needs 64 (RFC 4862 5.5.3 d)


class PrefixPool:
    """The prefixes one anchor may lend; the longest unused comes first."""

    def __init__(self, pools: Sequence[IPv6Network]) -> None:
        self._pools = tuple(pools)
        self._fresh = self._walk()
        self._taken: set[IPv6Network] = set()
        self._returned: deque[IPv6Network] = deque()

    def __contains__(self, prefix: IPv6Network) -> bool:
        return prefix.prefixlen == PREFIX_LENGTH and any(prefix.subnet_of(pool) for pool in self._pools)

    def __len__(self) -> int:
        """Number of prefixes that are lent or held back."""
        return len(self._taken)

    def lend(self) -> IPv6Network | None:
        """A prefix nobody has, or None when all are lent: one never used if there is any, else the longest unused."""
        for prefix in self._fresh:
            if prefix not in self._taken:
                self._taken.add(prefix)
                return prefix
        while self._returned:
            prefix = self._returned.popleft()
            if prefix not in self._taken:
                self._taken.add(prefix)
                return prefix
        return None

    def claim(self, prefix: IPv6Network) -> bool:
        """Mark a prefix as lent, as it was before a restart. False: it is not ours, or lent already."""
        if prefix not in self or prefix in self._taken:
            return False
        self._taken.add(prefix)
        return True

    def give_back(self, prefix: IPv6Network) -> None:
        """The prefix may be lent again."""
        self._taken.remove(prefix)
        self._returned.append(prefix)

    def _walk(self) -> Iterator[IPv6Network]:
        for pool in self._pools:
            yield from pool.subnets(new_prefix=PREFIX_LENGTH)
