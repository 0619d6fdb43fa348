"""Numbers of rtnetlink, as in linux/netlink.h, rtnetlink.h, if_*.h, neighbour.h, fib_rules.h."""

from enum import IntEnum, IntFlag

SOL_NETLINK = 270
NETLINK_ROUTE = 0


class SocketOption(IntEnum):
    """Options of a netlink socket, level SOL_NETLINK."""

    ADD_MEMBERSHIP = 1
    CAP_ACK = 10  # an ack repeats only the header of the request
    EXT_ACK = 11  # an ack may carry a sentence
    GET_STRICT_CHK = 12  # the kernel filters dumps by what the header says


class Group(IntEnum):
    """Multicast groups of events, RTNLGRP_*."""

    LINK = 1
    NEIGH = 3
    IPV4_IFADDR = 5
    IPV4_ROUTE = 7
    IPV6_IFADDR = 9
    IPV6_ROUTE = 11


class MessageFlag(IntEnum):  # not IntFlag: its | takes microseconds, and is used with every request
    """NLM_F_* of requests, acks and dumps."""

    REQUEST = 0x001
    ACK = 0x004
    DUMP_INTR = 0x010  # the table changed while it was dumped
    REPLACE = 0x100
    EXCL = 0x200
    CREATE = 0x400
    DUMP = 0x300
    CAPPED = 0x100  # of an ack: only the header of the request follows
    ACK_TLVS = 0x200  # of an ack: attributes follow that


class Message(IntEnum):
    """Message types, NLMSG_* and RTM_*."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNEIGH = 28
    DELNEIGH = 29
    GETNEIGH = 30
    NEWRULE = 32
    DELRULE = 33
    GETRULE = 34


NLMSGERR_ATTR_MSG = 1


class LinkFlag(IntEnum):
    """IFF_* of linux/if.h that we look at."""

    UP = 0x1
    LOWER_UP = 0x10000


class OperState(IntEnum):
    """State of a link as RFC 2863 has it, IF_OPER_*."""

    UNKNOWN = 0
    NOTPRESENT = 1
    DOWN = 2
    LOWERLAYERDOWN = 3
    TESTING = 4
    DORMANT = 5
    UP = 6


class LinkAttribute(IntEnum):
    """IFLA_* attributes."""

    ADDRESS = 1
    IFNAME = 3
    MTU = 4
    LINK = 5
    MASTER = 10
    QUEUE_LENGTH = 13
    OPERSTATE = 16
    LINKINFO = 18
    NET_NS_FD = 28
    INFO_KIND = 1  # inside LINKINFO
    INFO_DATA = 2  # inside LINKINFO


class AddressFlag(IntFlag):
    """IFA_F_* flags of an address."""

    TEMPORARY = 0x01  # of IPv6, RFC 8981; of IPv4: not the first of its subnet
    NODAD = 0x02
    DADFAILED = 0x08
    DEPRECATED = 0x20
    TENTATIVE = 0x40
    PERMANENT = 0x80
    MANAGETEMPADDR = 0x100
    NOPREFIXROUTE = 0x200


class AddressAttribute(IntEnum):
    """IFA_* attributes."""

    ADDRESS = 1
    LOCAL = 2
    FLAGS = 8


class RouteKind(IntEnum):
    """What a route does with a packet, RTN_*."""

    UNSPEC = 0
    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


class RouteProtocol(IntEnum):
    """Who made a route, RTPROT_*; our own number is netlink.ROUTE_PROTOCOL."""

    UNSPEC = 0
    KERNEL = 2
    BOOT = 3
    STATIC = 4
    RA = 9


class Table(IntEnum):
    """Routing tables with a name, RT_TABLE_*."""

    UNSPEC = 0
    COMPAT = 252  # in the 8-bit field: look at the attribute
    MAIN = 254
    LOCAL = 255


RTM_F_CLONED = 0x200  # a cached exception, not a configured route


class RouteAttribute(IntEnum):
    """RTA_* attributes."""

    DST = 1
    SRC = 2
    OIF = 4
    GATEWAY = 5
    PRIORITY = 6
    PREFSRC = 7
    MULTIPATH = 9
    TABLE = 15


class RuleAttribute(IntEnum):
    """FRA_* attributes."""

    DST = 1
    SRC = 2
    IIFNAME = 3
    PRIORITY = 6
    TABLE = 15
    PROTOCOL = 21
    IP_PROTO = 22
    SPORT_RANGE = 23
    DPORT_RANGE = 24


FR_ACT_TO_TBL = 1


class NeighborState(IntFlag):
    """NUD_* states of a neighbour."""

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


class NeighborAttribute(IntEnum):
    """NDA_* attributes."""

    DST = 1
    LLADDR = 2
    IFINDEX = 8
