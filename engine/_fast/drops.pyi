import enum

class Drop(enum.IntEnum):
    NOT_IP = 1
    TRUNCATED = 2
    BAD_HEADER = 3
    BAD_SOURCE = 4
    BAD_DESTINATION = 5
    HOP_LIMIT = 6
    BAD_OFFLOAD = 7
    NO_BINDING = 8
    NODE_AWAY = 9
    HOLD_FULL = 10
    HOLD_EXPIRED = 11
    POLICY = 12
    NO_PATH = 13
    LOOP = 14
    UNKNOWN_TUNNEL = 15
    NOT_BOUND = 16
    ECN = 17
    TWIN = 18
    REORDER_FULL = 19
    NO_PORT = 20
    TOO_BIG = 21
    UNDERLAY_FULL = 22
    UNDERLAY_ERROR = 23
    TUN_FULL = 24
    TUN_ERROR = 25
