"""The Internet checksum (RFC 1071), in wide arithmetic; with AVX2 where the processor has it, found out at run time.

A total is a one's complement sum in 64 bits of 16-bit words in the machine's own order: it holds any number of octets,
and totals of parts add up. Rule: every part but the last has an even number of octets, wherever it lies in memory.

    store(field, finish(add(header, 20, 0)))              # an IPv4 header whose field is 0
    finish(add(tcp, length, pseudo6(addresses, PROTO_TCP, length))) == 0              # a segment that is whole
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from engine._fast.kernel cimport htobe32

cdef extern from *:
    """
    #ifndef OPENMAR_CHECKSUM
    #define OPENMAR_CHECKSUM
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define OPENMAR_VECTORS 1
    #endif
    #define OPENMAR_UNUSED __attribute__((unused))

    OPENMAR_UNUSED static inline uint64_t openmar_plus(uint64_t one, uint64_t other)
    {
        uint64_t total;
        return __builtin_add_overflow(one, other, &total) ? total + 1 : total;    /* end-around carry */
    }

    /* less than 8 octets, in the order of memory, the rest 0 */
    OPENMAR_UNUSED static inline uint64_t openmar_rest(const uint8_t *octets, size_t length)
    {
        uint64_t word = 0;
        uint8_t *into = (uint8_t *)&word;
        size_t at = 0;
        if (length & 4) { memcpy(into, octets, 4); at = 4; }
        if (length & 2) { memcpy(into + at, octets + at, 2); at += 2; }
        if (length & 1) into[at] = octets[at];
        return word;
    }

    OPENMAR_UNUSED static inline uint64_t openmar_sum_plain(const uint8_t *octets, size_t length, uint64_t total)
    {
        uint64_t word[4];
    #ifdef __SIZEOF_INT128__
        unsigned __int128 wide = total;                   /* carries pile up above, and come home at the end */
        while (length >= 32) {
            memcpy(word, octets, 32);
            wide += (unsigned __int128)word[0] + word[1] + word[2] + word[3];
            octets += 32;
            length -= 32;
        }
        while (length >= 8) {
            memcpy(word, octets, 8);
            wide += word[0];
            octets += 8;
            length -= 8;
        }
        total = openmar_plus((uint64_t)wide, (uint64_t)(wide >> 64));
    #else
        while (length >= 8) {
            memcpy(word, octets, 8);
            total = openmar_plus(total, word[0]);
            octets += 8;
            length -= 8;
        }
    #endif
        return length ? openmar_plus(total, openmar_rest(octets, length)) : total;
    }

    #ifdef OPENMAR_VECTORS
    #define OPENMAR_ENOUGH 128                            /* octets from which vectors pay */

    __attribute__((unused, noinline, target("avx2")))
    static uint64_t openmar_sum_avx2(const uint8_t *octets, size_t length, uint64_t total)
    {
        const __m256i low = _mm256_set1_epi64x(0xffffffff);
        __m256i even[2], odd[2], one, two, three, four;
        uint64_t lane[4];
        even[0] = even[1] = odd[0] = odd[1] = _mm256_setzero_si256();
        while (length >= 128) {                           /* 32-bit words in 64-bit lanes: no carry below 512 GiB */
            one = _mm256_loadu_si256((const __m256i *)octets);
            two = _mm256_loadu_si256((const __m256i *)(octets + 32));
            three = _mm256_loadu_si256((const __m256i *)(octets + 64));
            four = _mm256_loadu_si256((const __m256i *)(octets + 96));
            even[0] = _mm256_add_epi64(even[0], _mm256_and_si256(one, low));
            odd[0] = _mm256_add_epi64(odd[0], _mm256_srli_epi64(one, 32));
            even[1] = _mm256_add_epi64(even[1], _mm256_and_si256(two, low));
            odd[1] = _mm256_add_epi64(odd[1], _mm256_srli_epi64(two, 32));
            even[0] = _mm256_add_epi64(even[0], _mm256_and_si256(three, low));
            odd[0] = _mm256_add_epi64(odd[0], _mm256_srli_epi64(three, 32));
            even[1] = _mm256_add_epi64(even[1], _mm256_and_si256(four, low));
            odd[1] = _mm256_add_epi64(odd[1], _mm256_srli_epi64(four, 32));
            octets += 128;
            length -= 128;
        }
        one = _mm256_add_epi64(_mm256_add_epi64(even[0], even[1]), _mm256_add_epi64(odd[0], odd[1]));
        _mm256_storeu_si256((__m256i *)lane, one);
        total = openmar_plus(total, lane[0] + lane[1] + lane[2] + lane[3]);
        return openmar_sum_plain(octets, length, total);
    }
    #define openmar_has_vectors() (__builtin_cpu_supports("avx2") != 0)
    #else
    #define openmar_sum_avx2 openmar_sum_plain
    #define openmar_has_vectors() 0
    #endif

    OPENMAR_UNUSED static inline uint64_t openmar_sum(const uint8_t *octets, size_t length, uint64_t total)
    {
    #ifdef OPENMAR_VECTORS
        if (length >= OPENMAR_ENOUGH && openmar_has_vectors())
            return openmar_sum_avx2(octets, length, total);
    #endif
        return openmar_sum_plain(octets, length, total);
    }
    #endif
    """
    # the total of length octets, added to a total
    uint64_t add "openmar_sum"(const uint8_t *octets, size_t length, uint64_t total) noexcept nogil
    uint64_t add_plain "openmar_sum_plain"(const uint8_t *octets, size_t length, uint64_t total) noexcept nogil
    uint64_t add_vectors "openmar_sum_avx2"(const uint8_t *octets, size_t length, uint64_t total) noexcept nogil
    bint has_vectors "openmar_has_vectors"() noexcept nogil
    # two totals in one; -1 in one's complement is ~total, so plus(total, ~part) takes a part away
    uint64_t plus "openmar_plus"(uint64_t one, uint64_t other) noexcept nogil


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """Total as 16 bits, in the machine's order; 0 only of nothing but zeros."""
    total = (total & 0xFFFFFFFFU) + (total >> 32)
    total = (total & 0xFFFFFFFFU) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>total


cdef inline uint16_t finish(uint64_t total) noexcept nogil:
    """The checksum, for store. Over octets that hold a right checksum: 0."""
    return <uint16_t>~fold(total)


cdef inline void store(uint8_t *field, uint16_t value) noexcept nogil:
    """Write what fold or finish gave: it is in the machine's order already."""
    memcpy(field, &value, 2)


cdef inline uint64_t pseudo6(const uint8_t *addresses, uint8_t protocol, uint32_t length) noexcept nogil:
    """Total of a pseudo-header (RFC 8200 8.1). addresses: source and destination, 32 octets; length: octets behind."""
    return add_plain(addresses, 32, <uint64_t>htobe32(length) + htobe32(protocol))


cdef inline uint64_t pseudo4(const uint8_t *addresses, uint8_t protocol, uint32_t length) noexcept nogil:
    """Total of a pseudo-header (RFC 9293 3.1, RFC 768). addresses: source and destination, 8 octets."""
    return add_plain(addresses, 8, <uint64_t>htobe32(length) + htobe32(protocol))
