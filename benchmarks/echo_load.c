/* The load of the echo family: one client for every server, in C so that it is not what is measured.
 *
 *   echo_load HOST:PORT CONNECTIONS BYTES DEPTH WARM_UP SECONDS
 *
 * Opens CONNECTIONS connections and keeps DEPTH messages of BYTES bytes under way on each. Messages
 * are counted when their last byte has come back, over SECONDS after WARM_UP seconds; what is then
 * still under way is waited for and checked too. Prints {"count": N, "seconds": S}.
 *
 * How bytes are checked: every connection sends one endless walk around a ring of random bytes,
 * begun at its own place. The ring's length is a prime, so no two neighbouring messages are alike,
 * and what must come back at any position of the stream is known without keeping what was sent.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024, MAX_CONNECTIONS = 1000, DRAIN_SECONDS = 5 };

#define RING_REPEATS CHUNK
#include "load_ring.h"

struct connection {
    uint64_t origin;         /* where on the ring this stream began */
    uint64_t sent, received; /* bytes */
    uint64_t answered;       /* whole messages */
};

static char incoming[CHUNK];
static struct connection peers[MAX_CONNECTIONS];
static struct pollfd polled[MAX_CONNECTIONS];
static uint64_t message, depth, total;
static double started, ended; /* of the measured time, once known */

static int open_connection(const struct sockaddr_in *address) {
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        fail("fcntl");
    return fd;
}

/* Sends messages up to the depth, or the rest of a begun one once time is up; asks for POLLOUT when
 * the socket takes no more. */
static void send_more(size_t which) {
    struct connection *peer = &peers[which];
    uint64_t begun = (peer->sent + message - 1) / message;
    uint64_t allowed = (ended ? begun : peer->answered + depth) * message;
    polled[which].events = POLLIN;
    while (peer->sent < allowed) {
        size_t size = allowed - peer->sent < CHUNK ? (size_t)(allowed - peer->sent) : CHUNK;
        ssize_t sent = send(polled[which].fd, ring + (peer->origin + peer->sent) % RING, size, 0);
        if (sent < 0 && errno == EAGAIN) {
            polled[which].events = POLLIN | POLLOUT;
            return;
        }
        if (sent < 0)
            fail("send");
        peer->sent += (uint64_t)sent;
    }
}

static void take(size_t which) {
    struct connection *peer = &peers[which];
    ssize_t size = recv(polled[which].fd, incoming, CHUNK, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size < 0)
        fail("recv");
    if (size == 0 || peer->received + (uint64_t)size > peer->sent ||
        memcmp(incoming, ring + (peer->origin + peer->received) % RING, (size_t)size) != 0) {
        fprintf(stderr, "connection %zu: %s after %llu bytes\n", which, size ? "wrong bytes" : "end of stream",
                (unsigned long long)peer->received);
        exit(3);
    }
    peer->received += (uint64_t)size;
    uint64_t answered = peer->received / message;
    total += answered - peer->answered;
    peer->answered = answered;
}

int main(int argc, char **argv) {
    char *colon = argc == 7 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: echo_load HOST:PORT CONNECTIONS BYTES DEPTH WARM_UP SECONDS\n");
        return 2;
    }
    *colon = '\0';
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    size_t connections = strtoul(argv[2], NULL, 10);
    message = strtoull(argv[3], NULL, 10);
    depth = strtoull(argv[4], NULL, 10);
    double warm_up = atof(argv[5]), seconds = atof(argv[6]);
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 || connections < 1 || connections > MAX_CONNECTIONS ||
        message < 1 || depth < 1) {
        fprintf(stderr, "echo_load: an argument is out of range\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    alarm((unsigned)(warm_up + seconds) + 3 * DRAIN_SECONDS);
    fill_ring();
    for (size_t i = 0; i < connections; i++) {
        peers[i].origin = i * STRIDE;
        polled[i].fd = open_connection(&address);
    }
    for (size_t i = 0; i < connections; i++)
        send_more(i);

    double began = now();
    uint64_t before = 0, after = 0;
    size_t under_way = connections; /* connections whose last answer is awaited, once time is up */
    while (under_way) {
        if (poll(polled, (nfds_t)connections, 1000 * DRAIN_SECONDS) <= 0) {
            fprintf(stderr, "echo_load: nothing came back for %d s\n", DRAIN_SECONDS);
            return 3;
        }
        for (size_t i = 0; i < connections; i++) {
            if (polled[i].revents & ~POLLOUT)
                take(i);
            if (polled[i].revents)
                send_more(i);
        }
        double time = now();
        if (!started && time - began >= warm_up) {
            started = time;
            before = total;
        } else if (started && !ended && time - started >= seconds) {
            ended = time;
            after = total;
        }
        if (ended) {
            under_way = 0;
            for (size_t i = 0; i < connections; i++)
                under_way += peers[i].answered * message < peers[i].sent;
        }
    }
    printf("{\"count\": %llu, \"seconds\": %.6f}\n", (unsigned long long)(after - before), ended - started);
    return 0;
}
