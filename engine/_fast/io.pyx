"""Bursts in, bursts out. Receiving gives the number of packets, or -errno: fd is of no more use."""

from libc.stdint cimport uint8_t

from engine._fast.burst cimport ROOM, WIDTH, clear
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.kernel cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, CMSG_SPACE, EACCES, EAGAIN, ECONNREFUSED, EHOSTUNREACH,
    EINTR, EMSGSIZE, ENETDOWN, ENETUNREACH, ENOBUFS, ENOMEM, EPROTO, IPPROTO_IPV6, IPV6_TCLASS, MSG_DONTWAIT,
    MSG_TRUNC, cmsghdr, errno, mmsghdr, read, recvmmsg, sendmmsg, sockaddr_in6, write,
)

cdef enum:
    END_OF_FILE = 5          # EIO: the other end is gone for good (a TUN never says this)


cdef int receive_tun(int fd, Burst *burst) noexcept nogil:
    """One read() per packet until none waits. An error after the first packet is left to the next call."""
    cdef uint32_t count = 0
    cdef ssize_t octets
    while count < WIDTH:
        octets = read(fd, burst.packet[count], ROOM)
        if octets > 0:
            burst.length[count] = <uint32_t>octets
            count += 1
        elif octets == 0:
            if count == 0:
                return -END_OF_FILE
            break
        elif errno == EINTR:
            continue
        elif count == 0 and errno != EAGAIN:
            return -errno
        else:
            break
    clear(burst, count)
    return <int>count


cdef int receive_underlay(int fd, Burst *burst) noexcept nogil:
    """One recvmmsg(): inner packets, who sent them, and the traffic class of the outer header."""
    cdef int count, i
    for i in range(WIDTH):
        address(burst, i, i, ROOM)
        burst.message[i].msg_hdr.msg_controllen = sizeof(burst.control[0])
        burst.outer[i].sin6_family = 0
    count = recvmmsg(fd, burst.message, WIDTH, MSG_DONTWAIT, NULL)
    if count < 0:
        return 0 if passes(errno) else -errno
    clear(burst, <uint32_t>count)
    for i in range(count):
        burst.length[i] = burst.message[i].msg_len
        burst.traffic_class[i] = arrived_class(&burst.message[i])
        if burst.message[i].msg_hdr.msg_namelen < sizeof(sockaddr_in6):
            burst.outer[i].sin6_family = 0
        if burst.message[i].msg_hdr.msg_flags & MSG_TRUNC:
            burst.length[i] = 0  # larger than any IPv6 packet: parse refuses it as truncated
    return count


cdef void send_tun(int fd, Burst *burst) noexcept nogil:
    """One write() per living packet."""
    cdef uint32_t i
    cdef ssize_t octets
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        octets = write(fd, burst.packet[i], burst.length[i])
        while octets < 0 and errno == EINTR:
            octets = write(fd, burst.packet[i], burst.length[i])
        if octets == <ssize_t>burst.length[i]:
            continue
        if octets < 0 and (errno == EAGAIN or errno == ENOBUFS or errno == ENOMEM):
            burst.drop[i] = Drop.TUN_FULL
        else:
            burst.drop[i] = Drop.TUN_ERROR


cdef void send_underlay(int fd, Burst *burst, uint32_t port) noexcept nogil:
    """The living packets of one port, with one sendmmsg() when all goes well."""
    cdef uint32_t i
    cdef uint32_t count = 0
    for i in range(burst.count):
        if burst.drop[i] == ALIVE and burst.port[i] == port:
            address(burst, count, i, burst.length[i])
            leaving_class(burst, count, burst.traffic_class[i])
            burst.order[count] = i
            count += 1
    push_out(fd, burst, count)


cdef void push_out(int fd, Burst *burst, uint32_t count) noexcept nogil:
    # The kernel stops at the first message it cannot send and says how many left before it. Only that one is
    # lost: we mark it and go on behind it, so a failure costs one call more and never the rest of the burst.
    cdef uint32_t sent = 0
    cdef int step
    while sent < count:
        step = sendmmsg(fd, &burst.message[sent], count - sent, MSG_DONTWAIT)
        if step > 0:
            sent += <uint32_t>step
        elif errno != EINTR:
            burst.drop[burst.order[sent]] = why_not_sent(errno)
            sent += 1


cdef uint8_t why_not_sent(int error) noexcept nogil:
    if error == EAGAIN or error == ENOBUFS or error == ENOMEM:
        return Drop.UNDERLAY_FULL
    if error == EMSGSIZE:
        return Drop.TOO_BIG
    return Drop.UNDERLAY_ERROR


cdef bint passes(int error) noexcept nogil:
    """Nothing waits, or an ICMP error was waiting and reading took it away: the socket itself is well."""
    return (error == EAGAIN or error == EINTR or error == ECONNREFUSED or error == EHOSTUNREACH
            or error == ENETUNREACH or error == ENETDOWN or error == EPROTO or error == EACCES
            or error == EMSGSIZE or error == ENOBUFS or error == ENOMEM)


cdef void address(Burst *burst, uint32_t k, uint32_t i, size_t octets) noexcept nogil:
    """Message k is packet i, of that many octets (or with room for them)."""
    cdef mmsghdr *message = &burst.message[k]
    burst.vector[k].iov_base = burst.packet[i]
    burst.vector[k].iov_len = octets
    message.msg_hdr.msg_name = &burst.outer[i]
    message.msg_hdr.msg_namelen = sizeof(sockaddr_in6)
    message.msg_hdr.msg_iov = &burst.vector[k]
    message.msg_hdr.msg_iovlen = 1
    message.msg_hdr.msg_control = burst.control[k]
    message.msg_hdr.msg_flags = 0


cdef void leaving_class(Burst *burst, uint32_t k, uint8_t traffic_class) noexcept nogil:
    cdef mmsghdr *message = &burst.message[k]
    cdef cmsghdr *item
    message.msg_hdr.msg_controllen = CMSG_SPACE(sizeof(int))
    item = CMSG_FIRSTHDR(&message.msg_hdr)
    item.cmsg_level = IPPROTO_IPV6
    item.cmsg_type = IPV6_TCLASS
    item.cmsg_len = CMSG_LEN(sizeof(int))
    (<int *>CMSG_DATA(item))[0] = traffic_class


cdef uint8_t arrived_class(mmsghdr *message) noexcept nogil:
    """Traffic class of the outer header; 0 when the socket was not asked to tell it."""
    cdef cmsghdr *item = CMSG_FIRSTHDR(&message.msg_hdr)
    while item != NULL:
        if item.cmsg_level == IPPROTO_IPV6 and item.cmsg_type == IPV6_TCLASS:
            return <uint8_t>(<int *>CMSG_DATA(item))[0]
        item = CMSG_NXTHDR(&message.msg_hdr, item)
    return 0
