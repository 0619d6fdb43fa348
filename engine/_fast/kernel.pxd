"""What the fast path takes from the C library and the kernel: structures, numbers, calls. Nothing of ours."""

from libc.stdint cimport uint16_t, uint32_t, uint8_t

cdef extern from "<endian.h>" nogil:
    unsigned short be16toh(unsigned short)
    unsigned short htobe16(unsigned short)
    unsigned long be64toh(unsigned long)

cdef extern from "<errno.h>" nogil:
    int errno
    int EACCES, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, EMSGSIZE, ENETDOWN, ENETUNREACH
    int ENOBUFS, ENOMEM, EPROTO

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<netinet/in.h>" nogil:
    int AF_INET6, IPPROTO_IPV6, IPV6_TCLASS

    struct in6_addr:
        uint8_t s6_addr[16]

    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port       # network order
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_TRUNC

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

    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_destroy(pthread_mutex_t *)

cdef extern from *:
    """
    #define openmar_prefetch(place) __builtin_prefetch(place)
    """
    void prefetch "openmar_prefetch"(const void *) noexcept nogil
