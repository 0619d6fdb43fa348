"""Faces of the checksum for Python: the tests and the benchmark look through them. All else is in checksum.pxd."""

from engine._fast.checksum cimport add, add_plain, add_vectors, finish, has_vectors
from engine._fast.kernel cimport htobe16


def internet_checksum(const uint8_t[::1] octets, start: int = 0, kind: str = "best") -> int:
    """RFC 1071, of octets from start on. kind: best, plain or vectors; vectors without AVX2 are plain ones."""
    cdef const uint8_t *first = NULL
    cdef size_t length
    cdef size_t at = start
    cdef uint64_t total
    if at > <size_t>octets.shape[0]:
        raise ValueError(f"start {start} lies behind {octets.shape[0]} octets")
    length = <size_t>octets.shape[0] - at
    if length > 0:
        first = &octets[at]
    if kind == "plain":
        total = add_plain(first, length, 0)
    elif kind == "vectors" and has_vectors():
        total = add_vectors(first, length, 0)
    else:
        total = add(first, length, 0)
    return htobe16(finish(total))


def rehearse(const uint8_t[::1] octets, rounds: int, kind: str = "best") -> int:
    """The checksum of octets (at least one), made so many times over."""
    cdef const uint8_t *first = &octets[0]
    cdef size_t length = octets.shape[0]
    cdef uint64_t total = 0
    cdef uint32_t k
    cdef uint32_t times = rounds
    cdef bint plain = kind == "plain"
    with nogil:
        for k in range(times):
            total &= 1                                    # each waits for the one before it
            total = add_plain(first, length, total) if plain else add(first, length, total)
    return htobe16(finish(total))
