/* blast: traffic for the bench, and what became of it, as one line of JSON. IPv6 only. blast.py does the same, slower.

   blast serve-tcp PORT                              takes what comes, or gives what is taken, until it is killed
   blast tcp ADDRESS PORT SECONDS STREAMS out|in     {"octets": delivered, "seconds": s}
   blast udp-receive PORT                            {"packets": delivered, "seconds": first to last}
   blast udp-send ADDRESS PORT OCTETS SECONDS        {"packets": sent, "seconds": s}; octets: payload of each
   blast ping ADDRESS COUNT INTERVAL                 {"round_trips": [us, ...], "lost": n}; one packet at a time

   Who serves prints "ready" first. A stream begins with one octet, o or i: which way its data goes, seen from
   the client; for o the server tells at the end how many octets it got. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,              /* datagrams in one call */
    DATAGRAM = 2048,         /* octets, the largest */
    CHUNK = 128 << 10,       /* octets in one TCP call */
    BUFFER = 64 << 20,       /* octets, of the UDP receiver */
    MOST_STREAMS = 64,
    PING_OCTETS = 64,        /* ICMPv6 header and data */
};
static const double QUIET = 0.5;       /* s without a datagram after which udp-receive is done */
static const double NOTHING = 10.0;    /* s it waits for the first */
static const double PING_TIMEOUT = 1.0; /* s */
static const double TICK = 0.1;        /* s after which a TCP call that is stuck looks at the clock */

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void limit(int socket, int option, double seconds) {
    struct timeval most = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    setsockopt(socket, SOL_SOCKET, option, &most, sizeof most);
}

static struct sockaddr_in6 place(const char *address, const char *port) {
    struct sockaddr_in6 there = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET6, address, &there.sin6_addr) != 1) {
        fprintf(stderr, "blast: %s is not an IPv6 address\n", address);
        exit(2);
    }
    return there;
}

static int open_socket(int style, int protocol) {
    int made = socket(AF_INET6, style, protocol);
    if (made < 0) fail("socket");
    return made;
}

static int open_server(int style, const char *port) {
    struct sockaddr_in6 here = place("::", port);
    int made = open_socket(style, 0), on = 1;
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(made, (struct sockaddr *)&here, sizeof here) < 0) fail("bind");
    return made;
}

static void say_ready(void) {
    puts("ready");
    fflush(stdout);
}

/* ---- TCP ---- */

static char chunk[CHUNK];

static uint64_t take(int stream, double until) {
    limit(stream, SO_RCVTIMEO, TICK);
    uint64_t octets = 0;
    while (now() < until) {
        ssize_t got = recv(stream, chunk, sizeof chunk, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) break;
        if (got > 0) octets += (uint64_t)got;
    }
    return octets;
}

static void give(int stream, double until) {
    limit(stream, SO_SNDTIMEO, TICK);
    while (now() < until) {
        if (send(stream, chunk, sizeof chunk, MSG_NOSIGNAL) < 0 && errno != EAGAIN && errno != EINTR) break;
    }
}

static void serve_stream(int stream) {
    char way = 0;
    if (recv(stream, &way, 1, 0) == 1 && way == 'i') give(stream, 1e18);
    if (way != 'o') return;
    uint64_t octets = take(stream, 1e18);
    if (send(stream, &octets, sizeof octets, MSG_NOSIGNAL) < 0) perror("send");
}

static int serve_tcp(char **arguments) {
    int server = open_server(SOCK_STREAM, arguments[0]);
    if (listen(server, MOST_STREAMS) < 0) fail("listen");
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    say_ready();
    for (;;) {
        int stream = accept(server, NULL, NULL);
        if (stream < 0) continue;
        if (fork() == 0) {
            close(server);
            serve_stream(stream);
            _exit(0);
        }
        close(stream);
    }
}

static uint64_t run_stream(const struct sockaddr_in6 *there, double seconds, char way) {
    int stream = open_socket(SOCK_STREAM, 0);
    if (connect(stream, (const struct sockaddr *)there, sizeof *there) < 0) fail("connect");
    if (send(stream, &way, 1, 0) != 1) fail("send");
    double until = now() + seconds;
    if (way == 'i') return take(stream, until);
    give(stream, until);
    shutdown(stream, SHUT_WR);
    limit(stream, SO_RCVTIMEO, NOTHING); /* the server still has to take what is on its way */
    uint64_t octets = 0;
    if (recv(stream, &octets, sizeof octets, MSG_WAITALL) != sizeof octets) fail("answer of the server");
    return octets;
}

static int tcp(char **arguments) {
    struct sockaddr_in6 there = place(arguments[0], arguments[1]);
    double seconds = atof(arguments[2]), began = now();
    int streams = atoi(arguments[3]), status = 0;
    if (streams < 1 || streams > MOST_STREAMS) return 2;
    uint64_t *octets = mmap(NULL, sizeof *octets * MOST_STREAMS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (octets == MAP_FAILED) fail("mmap");
    for (int i = 0; i < streams; i++) {
        if (fork() == 0) {
            octets[i] = run_stream(&there, seconds, arguments[4][0]);
            _exit(0);
        }
    }
    for (int i = 0; i < streams; i++) {
        int ended = 1;
        wait(&ended);
        status |= ended;
    }
    uint64_t sum = 0;
    for (int i = 0; i < streams; i++) sum += octets[i];
    printf("{\"octets\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sum, now() - began);
    return status != 0;
}

/* ---- UDP ---- */

static int udp_receive(char **arguments) {
    static char octets[BATCH][DATAGRAM];
    static struct mmsghdr messages[BATCH];
    static struct iovec pieces[BATCH];
    int server = open_server(SOCK_DGRAM, arguments[0]), buffer = BUFFER;
    if (setsockopt(server, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(server, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){octets[i], DATAGRAM};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = pieces + i, .msg_iovlen = 1};
    }
    limit(server, SO_RCVTIMEO, NOTHING);
    say_ready();
    unsigned long long packets = 0;
    double first = 0, last = 0;
    for (int got; (got = recvmmsg(server, messages, BATCH, MSG_WAITFORONE, NULL)) > 0;) {
        last = now();
        if (packets == 0) {
            first = last;
            limit(server, SO_RCVTIMEO, QUIET);
        }
        packets += (unsigned)got;
    }
    printf("{\"packets\": %llu, \"seconds\": %.6f}\n", packets, last - first);
    return 0;
}

static int udp_send(char **arguments) {
    static char octets[DATAGRAM];
    static struct mmsghdr messages[BATCH];
    struct sockaddr_in6 there = place(arguments[0], arguments[1]);
    struct iovec piece = {octets, (size_t)atoi(arguments[2])};
    double seconds = atof(arguments[3]), began, elapsed;
    if (piece.iov_len > DATAGRAM) return 2;
    int sender = open_socket(SOCK_DGRAM, 0);
    if (connect(sender, (struct sockaddr *)&there, sizeof there) < 0) fail("connect");
    for (int i = 0; i < BATCH; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
    unsigned long long packets = 0;
    for (began = now(); (elapsed = now() - began) < seconds;) {
        int sent = sendmmsg(sender, messages, BATCH, 0);
        if (sent > 0) packets += (unsigned)sent;
    }
    printf("{\"packets\": %llu, \"seconds\": %.6f}\n", packets, elapsed);
    return 0;
}

/* ---- ping ---- */

/* Seconds until the echo with this number is back, or -1. */
static double round_trip(int pinger, uint16_t number) {
    uint8_t octets[PING_OCTETS] = {0}, answer[1500];
    struct icmp6_hdr *request = (struct icmp6_hdr *)octets, *reply = (struct icmp6_hdr *)answer;
    request->icmp6_type = ICMP6_ECHO_REQUEST;
    request->icmp6_id = htons((uint16_t)getpid());
    request->icmp6_seq = htons(number);
    double began = now();
    if (send(pinger, octets, sizeof octets, 0) < 0) return -1;
    while (now() < began + PING_TIMEOUT) {
        ssize_t got = recv(pinger, answer, sizeof answer, 0);
        double back = now();
        if (got < (ssize_t)sizeof *reply) continue;
        if (reply->icmp6_id == request->icmp6_id && reply->icmp6_seq == request->icmp6_seq) return back - began;
    }
    return -1;
}

static int ping(char **arguments) {
    struct sockaddr_in6 there = place(arguments[0], "0");
    int count = atoi(arguments[1]), lost = 0, pinger = open_socket(SOCK_RAW, IPPROTO_ICMPV6);
    double interval = atof(arguments[2]);
    struct timespec pause = {(time_t)interval, (long)((interval - (double)(time_t)interval) * 1e9)};
    struct icmp6_filter replies;
    ICMP6_FILTER_SETBLOCKALL(&replies);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &replies);
    setsockopt(pinger, IPPROTO_ICMPV6, ICMP6_FILTER, &replies, sizeof replies);
    limit(pinger, SO_RCVTIMEO, PING_TIMEOUT);
    if (connect(pinger, (struct sockaddr *)&there, sizeof there) < 0) fail("connect");
    printf("{\"round_trips\": [");
    for (int i = 0, written = 0; i < count; i++) {
        if (i) nanosleep(&pause, NULL);
        double seconds = round_trip(pinger, (uint16_t)i);
        if (seconds < 0) lost++;
        else printf("%s%.1f", written++ ? ", " : "", seconds * 1e6);
    }
    printf("], \"lost\": %d}\n", lost);
    return 0;
}

static const struct {
    const char *name;
    int arguments;
    int (*run)(char **arguments);
} commands[] = {
    {"serve-tcp", 1, serve_tcp}, {"tcp", 5, tcp},   {"udp-receive", 1, udp_receive},
    {"udp-send", 4, udp_send},   {"ping", 3, ping},
};

int main(int count, char **arguments) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (count == commands[i].arguments + 2 && strcmp(arguments[1], commands[i].name) == 0)
            return commands[i].run(arguments + 2);
    }
    fprintf(stderr, "usage: blast serve-tcp|tcp|udp-receive|udp-send|ping ...\n");
    return 2;
}
