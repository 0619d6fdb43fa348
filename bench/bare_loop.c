/* The bare loop: a tunnel with nothing in it, to see how fast a tunnel in user space can be on this machine.

       TUN device  <-- carry_in ---   underlay socket         no tables, no rules, no counters, one peer;
       (64 KiB)    --- carry_out -->  (UDP or raw)            IPv6 packets in IPv6, and nothing else

   What it has is what the kernel offers: a TUN with virtio-net header takes and gives TCP and UDP packets of up to
   64 KiB; they are cut into datagrams here (no octet of payload is copied) and merged again at the other end.
   udp: a run of equal datagrams is one sendmsg with UDP_SEGMENT, and UDP_GRO brings runs back; port 5437.
   raw: bare IPv6-in-IPv6 (RFC 2473), sendmmsg and recvmmsg.

   usage: bare_loop DEVICE udp|raw LOCAL REMOTE */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT /* an old C library */
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif
#ifndef TUN_F_USO4 /* linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

enum {
    PORT = 5437,
    TCP = IPPROTO_TCP,
    UDP = IPPROTO_UDP,
    IPV6_HEADER = 40,        /* octets, as all below unless it says otherwise */
    LARGEST = 65536 + 64,    /* a packet of the TUN */
    ARENA = 4 * LARGEST,     /* room for packets that wait to be sent; small, so that it stays in the cache */
    MOST_DATAGRAMS = 64,     /* in one UDP_SEGMENT message: datagrams */
    MOST_OCTETS = 64000,     /* and octets */
    HEADERS = 160,           /* IPv6 and TCP header with options */
    BURST = 64,              /* packets from the TUN in one go */
    UDP_MESSAGES = 16,       /* of 64 KiB each, when UDP_GRO fills them */
    RAW_MESSAGES = 64,
    RAW_MESSAGE = 2048,
    BUFFER = 8 << 20,        /* of the socket, each direction */
    LOOKS = 4,               /* how often to look again before going to sleep */
    FIN = 0x01, PSH = 0x08, ACK = 0x10, CWR = 0x80,
};

static int tun, underlay;
static bool raw, merges_udp;
static struct sockaddr_in6 peer;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* ---- octets ---- */

static uint16_t read16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static uint32_t read32(const uint8_t *at) { return (uint32_t)read16(at) << 16 | read16(at + 2); }
static void write16(uint8_t *at, unsigned value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }
static void write32(uint8_t *at, uint32_t value) { write16(at, value >> 16), write16(at + 2, value); }

/* One's complement sum of octets in the order of this machine, not folded yet; plain enough to be vectorised. */
static uint64_t add(const uint8_t *octets, size_t length, uint64_t sum) {
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, octets + 4 * i, 4);
        sum += word;
    }
    for (size_t i = words * 4; i < length; i += 2) {
        uint16_t half = 0;
        memcpy(&half, octets + i, length - i < 2 ? 1 : 2);
        sum += half;
    }
    return sum;
}

static uint16_t fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* Sum of the pseudo-header (RFC 8200 8.1) of an IPv6 packet, for so many octets of transport. */
static uint64_t pseudo(const uint8_t *packet, int protocol, size_t length) {
    return add(packet + 8, 32, 0) + htons((uint16_t)protocol) + htons((uint16_t)length);
}

/* ---- out: from the TUN to the socket ---- */

/* Datagrams that leave together. udp: of one size, the last may be shorter. They lie in arena and headers until then. */
static struct {
    struct iovec pieces[2 * MOST_DATAGRAMS];
    uint8_t first_piece[MOST_DATAGRAMS + 1]; /* of each datagram */
    int pieces_used, datagrams;
    size_t size, octets;
} run;
static uint8_t arena[ARENA];
static size_t arena_used;
static uint8_t headers[MOST_DATAGRAMS][HEADERS];

static void send_as_one(void) {
    union {
        struct cmsghdr aligned;
        char octets[CMSG_SPACE(sizeof(uint16_t))];
    } control = {0};
    struct msghdr message = {.msg_name = &peer, .msg_namelen = sizeof peer};
    message.msg_iov = run.pieces;
    message.msg_iovlen = (size_t)run.pieces_used;
    if (run.datagrams > 1) {
        uint16_t size = (uint16_t)run.size;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
        segment->cmsg_level = SOL_UDP;
        segment->cmsg_type = UDP_SEGMENT;
        segment->cmsg_len = CMSG_LEN(sizeof size);
        memcpy(CMSG_DATA(segment), &size, sizeof size);
    }
    if (sendmsg(underlay, &message, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS) perror("sendmsg");
}

static void send_one_by_one(void) {
    static struct mmsghdr messages[MOST_DATAGRAMS];
    for (int i = 0; i < run.datagrams; i++) {
        messages[i].msg_hdr = (struct msghdr){.msg_name = &peer, .msg_namelen = sizeof peer};
        messages[i].msg_hdr.msg_iov = run.pieces + run.first_piece[i];
        messages[i].msg_hdr.msg_iovlen = (size_t)(run.first_piece[i + 1] - run.first_piece[i]);
    }
    for (int sent = 0; sent < run.datagrams;) {
        int more = sendmmsg(underlay, messages + sent, (unsigned)(run.datagrams - sent), MSG_DONTWAIT);
        sent += more > 0 ? more : 1; /* the one that failed is lost */
    }
}

static void send_run(void) {
    if (run.datagrams == 0) return;
    if (raw) send_one_by_one();
    else send_as_one();
    run.datagrams = run.pieces_used = 0;
    run.octets = 0;
}

/* Make room for one more datagram of this size, then say which header block is free for it. */
static uint8_t *next_header(size_t size) {
    bool fits = run.datagrams < MOST_DATAGRAMS && (raw || (size <= run.size && run.octets + size <= MOST_OCTETS));
    if (run.datagrams && !fits) send_run();
    if (run.datagrams == 0) run.size = size;
    return headers[run.datagrams];
}

static void append(uint8_t *octets, size_t length) {
    struct iovec *last = run.pieces + run.pieces_used - 1;
    bool goes_on = run.pieces_used && !raw && (uint8_t *)last->iov_base + last->iov_len == octets;
    if (goes_on) last->iov_len += length;
    else run.pieces[run.pieces_used++] = (struct iovec){octets, length};
    run.octets += length;
}

static void begin_datagram(void) { run.first_piece[run.datagrams] = (uint8_t)run.pieces_used; }

static void end_datagram(size_t size) {
    run.first_piece[++run.datagrams] = (uint8_t)run.pieces_used;
    if (!raw && size < run.size) send_run();
}

/* Cut a TCP or UDP packet into segments; each has a header block of its own and a slice of the payload. */
static void cut(uint8_t *packet, size_t length, const struct virtio_net_hdr *about) {
    bool tcp = (about->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV6;
    size_t transport = about->csum_start, most = about->gso_size, checksum = transport + (tcp ? 16 : 6);
    if (length < transport + 20 || most == 0) return;
    size_t header = transport + (tcp ? (size_t)(packet[transport + 12] >> 4) * 4 : 8);
    if (header > HEADERS || header >= length) return;
    write16(packet + checksum, 0);
    uint32_t sequence = read32(packet + transport + 4); /* of TCP; for UDP nobody looks at it */
    for (size_t at = header; at < length; at += most) {
        bool first = at == header, last = at + most >= length;
        size_t payload = last ? length - at : most, segment = header - transport + payload;
        uint8_t *block = next_header(header + payload);
        memcpy(block, packet, header);
        write16(block + 4, (unsigned)(header - IPV6_HEADER + payload));
        if (tcp) {
            write32(block + transport + 4, sequence + (uint32_t)(at - header));
            if (!first) block[transport + 13] &= (uint8_t)~CWR;
            if (!last) block[transport + 13] &= (uint8_t)~(FIN | PSH);
        } else {
            write16(block + transport + 4, (unsigned)segment);
        }
        uint64_t sum = pseudo(packet, tcp ? TCP : UDP, segment);
        sum = add(packet + at, payload, add(block + transport, header - transport, sum));
        uint16_t folded = (uint16_t)~fold(sum);
        if (!tcp && folded == 0) folded = 0xffff;
        memcpy(block + checksum, &folded, 2);
        begin_datagram();
        append(block, header);
        append(packet + at, payload);
        end_datagram(header + payload);
    }
}

static void finish_checksum(uint8_t *packet, size_t length, const struct virtio_net_hdr *about) {
    size_t start = about->csum_start, at = start + about->csum_offset;
    if (at + 2 > length) return;
    uint16_t folded = (uint16_t)~fold(add(packet + start, length - start, 0));
    if (folded == 0) folded = 0xffff; /* both are zero in one's complement, and UDP must not send the first */
    memcpy(packet + at, &folded, 2);
}

/* A burst from the TUN; how many packets. */
static int carry_out(void) {
    int taken = 0;
    for (; taken < BURST; taken++) {
        if (arena_used + LARGEST > ARENA) {
            send_run();
            arena_used = 0;
        }
        struct virtio_net_hdr about;
        uint8_t *packet = arena + arena_used;
        struct iovec parts[2] = {{&about, sizeof about}, {packet, LARGEST}};
        ssize_t got = readv(tun, parts, 2);
        if (got <= (ssize_t)sizeof about + IPV6_HEADER) break;
        size_t length = (size_t)got - sizeof about;
        if (packet[0] >> 4 != 6) continue;
        arena_used += length;
        if (about.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
            cut(packet, length, &about);
            continue;
        }
        if (about.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) finish_checksum(packet, length, &about);
        next_header(length);
        begin_datagram();
        append(packet, length);
        end_datagram(length);
    }
    send_run();
    arena_used = 0;
    return taken;
}

/* ---- in: from the socket to the TUN ---- */

/* Packets of one flow that become one: headers of the first, then slices of payload where they were received. */
static struct {
    struct virtio_net_hdr about;
    uint8_t header[HEADERS];
    struct iovec pieces[2 + MOST_DATAGRAMS]; /* about, header, slices */
    int slices;                              /* 0: nothing waits */
    int protocol;
    size_t header_length, size, payload; /* size: of the first slice, the others are not longer */
    uint32_t next_sequence;
} merged;

static void write_tun(struct iovec *pieces, int count) {
    ssize_t written = writev(tun, pieces, count);
    (void)written; /* a full or a switched-off device loses it, as a link would */
}

static void write_alone(uint8_t *packet, size_t length) {
    struct virtio_net_hdr nothing = {0};
    struct iovec pieces[2] = {{&nothing, sizeof nothing}, {packet, length}};
    write_tun(pieces, 2);
}

static void write_merged(void) {
    if (merged.slices == 0) return;
    memset(&merged.about, 0, sizeof merged.about);
    if (merged.slices > 1) {
        bool tcp = merged.protocol == TCP;
        size_t transport = merged.header_length - IPV6_HEADER + merged.payload;
        merged.about.gso_type = tcp ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_UDP_L4;
        merged.about.gso_size = (uint16_t)merged.size;
        merged.about.hdr_len = (uint16_t)merged.header_length;
        merged.about.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        merged.about.csum_start = IPV6_HEADER;
        merged.about.csum_offset = tcp ? 16 : 6;
        write16(merged.header + 4, (unsigned)transport);
        if (!tcp) write16(merged.header + IPV6_HEADER + 4, (unsigned)transport);
        uint16_t sum = fold(pseudo(merged.header, merged.protocol, transport));
        memcpy(merged.header + IPV6_HEADER + merged.about.csum_offset, &sum, 2);
    }
    merged.pieces[0] = (struct iovec){&merged.about, sizeof merged.about};
    merged.pieces[1] = (struct iovec){merged.header, merged.header_length};
    write_tun(merged.pieces, 2 + merged.slices);
    merged.slices = 0;
}

/* Length of the headers if the packet may be merged with others, else 0. */
static size_t mergeable(const uint8_t *packet, size_t length) {
    if (length < IPV6_HEADER + 20 || packet[0] >> 4 != 6 || read16(packet + 4) != length - IPV6_HEADER) return 0;
    size_t header;
    if (packet[6] == TCP) {
        header = IPV6_HEADER + (size_t)(packet[52] >> 4) * 4;
        if (header < IPV6_HEADER + 20 || (packet[53] & ~PSH) != ACK) return 0;
    } else if (packet[6] == UDP && merges_udp) {
        header = IPV6_HEADER + 8;
        if (read16(packet + 44) != length - IPV6_HEADER || read16(packet + 46) == 0) return 0;
    } else {
        return 0;
    }
    if (header >= length) return 0;
    uint64_t sum = pseudo(packet, packet[6], length - IPV6_HEADER);
    return fold(add(packet + IPV6_HEADER, length - IPV6_HEADER, sum)) == 0xffff ? header : 0;
}

static bool goes_on(const uint8_t *packet, size_t header, size_t payload) {
    const uint8_t *before = merged.header;
    if (merged.slices == 0 || merged.slices == MOST_DATAGRAMS || header != merged.header_length) return false;
    if (payload > merged.size || header + merged.payload + payload > 65535) return false;
    if (memcmp(before, packet, 4) || memcmp(before + 6, packet + 6, 38)) return false; /* up to the ports */
    if (packet[6] == UDP) return true;
    return read32(packet + 44) == merged.next_sequence && memcmp(before + 48, packet + 48, 5) == 0 /* ack, length */
        && memcmp(before + 60, packet + 60, header - 60) == 0;                                     /* options */
}

static void take_in(uint8_t *packet, size_t length) {
    size_t header = mergeable(packet, length), payload = length - header;
    if (header == 0) {
        write_merged();
        write_alone(packet, length);
        return;
    }
    if (!goes_on(packet, header, payload)) {
        write_merged();
        memcpy(merged.header, packet, header);
        merged.protocol = packet[6];
        merged.header_length = header;
        merged.size = payload;
        merged.payload = 0;
    }
    merged.pieces[2 + merged.slices++] = (struct iovec){packet + header, payload};
    merged.payload += payload;
    bool pushed = merged.protocol == TCP && packet[53] & PSH;
    if (merged.protocol == TCP) {
        merged.header[53] |= packet[53];
        merged.next_sequence = read32(packet + 44) + (uint32_t)payload;
    }
    if (pushed || payload < merged.size) write_merged();
}

static size_t segment_size(struct msghdr *message, size_t length) {
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(each), sizeof size);
            return size > 0 ? (size_t)size : length;
        }
    }
    return length;
}

/* What waits in the socket, or a part of it; how many messages. */
static int carry_in(void) {
    static uint8_t buffers[UDP_MESSAGES * LARGEST];
    static union {
        struct cmsghdr aligned;
        char octets[CMSG_SPACE(sizeof(int))];
    } control[RAW_MESSAGES];
    static struct mmsghdr messages[RAW_MESSAGES];
    static struct iovec pieces[RAW_MESSAGES];
    int most = raw ? RAW_MESSAGES : UDP_MESSAGES;
    size_t room = raw ? RAW_MESSAGE : LARGEST;
    for (int i = 0; i < most; i++) {
        pieces[i] = (struct iovec){buffers + (size_t)i * room, room};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = pieces + i, .msg_iovlen = 1};
        messages[i].msg_hdr.msg_control = control + i;
        messages[i].msg_hdr.msg_controllen = sizeof control[i];
    }
    int got = recvmmsg(underlay, messages, (unsigned)most, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        size_t length = messages[i].msg_len, size = segment_size(&messages[i].msg_hdr, length);
        uint8_t *octets = pieces[i].iov_base;
        for (size_t at = 0; at < length; at += size) take_in(octets + at, length - at < size ? length - at : size);
    }
    write_merged();
    return got > 0 ? got : 0;
}

/* ---- opening ---- */

static void open_tun(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0) fail("/dev/net/tun");
    unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    merges_udp = ioctl(tun, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) == 0;
    if (!merges_udp && ioctl(tun, TUNSETOFFLOAD, tcp) < 0) perror("TUNSETOFFLOAD");
}

static void open_underlay(const char *local, const char *remote) {
    struct sockaddr_in6 here = {.sin6_family = AF_INET6};
    peer.sin6_family = AF_INET6;
    if (!raw) here.sin6_port = peer.sin6_port = htons(PORT);
    if (inet_pton(AF_INET6, local, &here.sin6_addr) != 1 || inet_pton(AF_INET6, remote, &peer.sin6_addr) != 1) {
        fprintf(stderr, "bare_loop: addresses are IPv6 addresses\n");
        exit(2);
    }
    underlay = raw ? socket(AF_INET6, SOCK_RAW, IPPROTO_IPV6) : socket(AF_INET6, SOCK_DGRAM, 0);
    if (underlay < 0 || bind(underlay, (struct sockaddr *)&here, sizeof here) < 0) fail("underlay socket");
    int on = 1, buffer = BUFFER;
    if (!raw && setsockopt(underlay, SOL_UDP, UDP_GRO, &on, sizeof on) < 0) perror("UDP_GRO");
    if (setsockopt(underlay, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(underlay, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (setsockopt(underlay, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(underlay, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
}

int main(int count, char **arguments) {
    if (count != 5 || (strcmp(arguments[2], "udp") && strcmp(arguments[2], "raw"))) {
        fprintf(stderr, "usage: bare_loop DEVICE udp|raw LOCAL REMOTE\n");
        return 2;
    }
    raw = strcmp(arguments[2], "raw") == 0;
    open_underlay(arguments[3], arguments[4]);
    open_tun(arguments[1]);
    struct pollfd both[2] = {{.fd = tun, .events = POLLIN}, {.fd = underlay, .events = POLLIN}};
    for (int looks = 0;;) {
        if (carry_out() + carry_in() > 0) {
            looks = 0;
        } else if (++looks < LOOKS) {
            sched_yield(); /* whoever fills our queues may need this very CPU: more to take, fewer wake-ups */
        } else {
            poll(both, 2, -1);
            looks = 0;
        }
    }
}
