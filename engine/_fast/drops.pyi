import enum

class Drop(enum.IntEnum):
    NOT_IPV6 = 1
    TRUNCATED = 2
    BAD_SOURCE = 3
    BAD_DESTINATION = 4
    HOP_LIMIT = 5
    NO_BINDING = 6
    NODE_AWAY = 7
    LOOP = 8
    UNKNOWN_TUNNEL = 9
    NOT_BOUND = 10
    ECN = 11
    NO_PORT = 12
    TOO_BIG = 13
    UNDERLAY_FULL = 14
    UNDERLAY_ERROR = 15
    TUN_FULL = 16
    TUN_ERROR = 17
