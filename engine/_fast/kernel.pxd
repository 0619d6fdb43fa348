"""What the fast path takes from the C library, the kernel and the compiler. Nothing of ours but their names."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef extern from "<endian.h>" nogil:
    unsigned short be16toh(unsigned short)
    unsigned short htobe16(unsigned short)
    unsigned int be32toh(unsigned int)
    unsigned int htobe32(unsigned int)
    unsigned long be64toh(unsigned long)
    unsigned long htobe64(unsigned long)

cdef extern from "<errno.h>" nogil:
    int errno
    int EACCES, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETDOWN, ENETUNREACH
    int ENOBUFS, ENOMEM, EPROTO

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

    ssize_t readv(int, const iovec *, int)
    ssize_t writev(int, const iovec *, int)

cdef extern from "<netinet/in.h>" nogil:
    int AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPV6_TCLASS, IP_TOS

    struct in6_addr:
        uint8_t s6_addr[16]

    struct in_addr:
        uint32_t s_addr          # network order

    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port        # network order
        in_addr sin_addr

    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port       # network order
        uint32_t sin6_flowinfo   # network order
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_TRUNC, MSG_ERRQUEUE, SOL_SOCKET

    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    unsigned char *CMSG_DATA(cmsghdr *)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)

    ssize_t sendmsg(int, const msghdr *, int)
    ssize_t recvmsg(int, msghdr *, int)
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)

cdef extern from "<poll.h>" nogil:
    int POLLIN, POLLERR, POLLHUP, POLLNVAL

    struct pollfd:
        int fd
        short events
        short revents

    int poll(pollfd *, unsigned long, int)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC

    struct timespec:
        long tv_sec
        long tv_nsec

    int clock_gettime(int, timespec *)

    struct itimerspec:
        timespec it_interval
        timespec it_value

cdef extern from "<sys/timerfd.h>" nogil:
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)

cdef extern from "<unistd.h>" nogil:
    int close(int)
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_NONE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_HUGEPAGE
    void *MAP_FAILED
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int mprotect(void *, size_t, int)
    int madvise(void *, size_t, int)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_destroy(pthread_mutex_t *)

cdef extern from *:
    """
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    #define openmar_prefetch(place) __builtin_prefetch(place)
    #define openmar_likely(x) __builtin_expect(!!(x), 1)
    #define openmar_unlikely(x) __builtin_expect(!!(x), 0)
    #define openmar_load_acquire(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define openmar_store_release(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    #define openmar_load_relaxed(place) __atomic_load_n((place), __ATOMIC_RELAXED)
    #define openmar_store_relaxed(place, value) __atomic_store_n((place), (value), __ATOMIC_RELAXED)
    #define openmar_fetch_add(place, value) __atomic_fetch_add((place), (value), __ATOMIC_RELAXED)
    #define openmar_exchange(place, value) __atomic_exchange_n((place), (value), __ATOMIC_RELAXED)
    #define openmar_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    #define openmar_log2(x) (63 - __builtin_clzll(x))
    """
    int UDP_SEGMENT, UDP_GRO, SOL_UDP
    void prefetch "openmar_prefetch"(const void *) noexcept nogil
    bint likely "openmar_likely"(bint) noexcept nogil
    bint unlikely "openmar_unlikely"(bint) noexcept nogil
    # one word, 1 to 8 octets, aligned; what a reader and the writer share goes through these
    uint32_t load32_acquire "openmar_load_acquire"(const uint32_t *) noexcept nogil
    uint64_t load64_acquire "openmar_load_acquire"(const uint64_t *) noexcept nogil
    void *load_pointer "openmar_load_acquire"(void **) noexcept nogil
    void store32_release "openmar_store_release"(uint32_t *, uint32_t) noexcept nogil
    void store64_release "openmar_store_release"(uint64_t *, uint64_t) noexcept nogil
    void store_pointer "openmar_store_release"(void **, void *) noexcept nogil
    uint8_t load8_relaxed "openmar_load_relaxed"(const uint8_t *) noexcept nogil
    uint32_t load32_relaxed "openmar_load_relaxed"(const uint32_t *) noexcept nogil
    uint64_t load64_relaxed "openmar_load_relaxed"(const uint64_t *) noexcept nogil
    void store8_relaxed "openmar_store_relaxed"(uint8_t *, uint8_t) noexcept nogil
    void store32_relaxed "openmar_store_relaxed"(uint32_t *, uint32_t) noexcept nogil
    void store64_relaxed "openmar_store_relaxed"(uint64_t *, uint64_t) noexcept nogil
    uint32_t fetch_add32 "openmar_fetch_add"(uint32_t *, uint32_t) noexcept nogil
    uint64_t fetch_add64 "openmar_fetch_add"(uint64_t *, uint64_t) noexcept nogil
    uint64_t exchange64 "openmar_exchange"(uint64_t *, uint64_t) noexcept nogil
    void full_fence "openmar_fence"() noexcept nogil
    int log2_floor "openmar_log2"(uint64_t) noexcept nogil  # of a number that is not 0
