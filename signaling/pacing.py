"""How often updates about one registration are sent, and how long their answers are waited for (RFC 6275 11.8, 12)."""

INITIAL_BINDACK_TIMEOUT = 1.0  # s
MAX_BINDACK_TIMEOUT = 32.0  # s, doubled with each try until then
MAX_UPDATE_RATE = 3  # a second


def not_before(sent: list[float], now: float) -> float | None:
    """When another update may be sent, monotonic s; None: now.

    sent: when those before were, oldest first; what does not count any more is taken out.
    """
    sent[:] = [at for at in sent if now < at + 1.0]  # as the time below, to the last bit
    return sent[0] + 1.0 if len(sent) >= MAX_UPDATE_RATE else None
