/* The load of the datagrams family: one client for every server, in C so that it is not what is
 * measured.
 *
 *   datagram_load HOST:PORT BYTES IN_FLIGHT WARM_UP SECONDS
 *
 * Keeps IN_FLIGHT datagrams of BYTES bytes under way from one socket: each that comes back is answered
 * with the next. Counts those that came back over SECONDS after WARM_UP seconds, and prints
 * {"count": N, "seconds": S}.
 *
 * Each datagram begins with its number, and goes on with the bytes that a ring of random bytes has at
 * that place, so what must come back is known without keeping what was sent. Datagrams may be lost:
 * after a fifth of a second in which none has come, all that are under way are sent again; one that
 * comes twice is counted once.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 65507, MAX_IN_FLIGHT = 1024, SILENCE_MS = 200, GIVE_UP = 25 };

#define RING_REPEATS LARGEST
#include "load_ring.h"

static char outgoing[LARGEST], incoming[LARGEST + 1];
static uint64_t under_way[MAX_IN_FLIGHT]; /* the number of the datagram in each place; a multiple of the places apart */
static uint64_t in_flight, size, total;
static int fd;

static const char *content(uint64_t number) { return ring + number * STRIDE % RING; }

static void send_datagram(uint64_t number) {
    memcpy(outgoing, &number, sizeof number);
    memcpy(outgoing + sizeof number, content(number), size - sizeof number);
    while (send(fd, outgoing, size, 0) < 0) {
        if (errno != EAGAIN && errno != ENOBUFS)
            fail("send");
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        poll(&writable, 1, 1);
    }
}

/* Takes everything that has come, and sends the next for each. */
static void take(void) {
    for (;;) {
        ssize_t got = recv(fd, incoming, sizeof incoming, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got < 0)
            fail("recv");
        uint64_t number;
        memcpy(&number, incoming, sizeof number);
        uint64_t *place = &under_way[number % in_flight];
        if ((uint64_t)got != size || number > *place ||
            memcmp(incoming + sizeof number, content(number), size - sizeof number) != 0) {
            fprintf(stderr, "datagram_load: a wrong datagram of %zd bytes came\n", got);
            exit(3);
        }
        if (number < *place)
            continue; /* was sent again, and both have come */
        total++;
        *place += in_flight;
        send_datagram(*place);
    }
}

int main(int argc, char **argv) {
    char *colon = argc == 6 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: datagram_load HOST:PORT BYTES IN_FLIGHT WARM_UP SECONDS\n");
        return 2;
    }
    *colon = '\0';
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    size = strtoull(argv[2], NULL, 10);
    in_flight = strtoull(argv[3], NULL, 10);
    double warm_up = atof(argv[4]), seconds = atof(argv[5]);
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 || size < sizeof(uint64_t) || size > LARGEST ||
        in_flight < 1 || in_flight > MAX_IN_FLIGHT) {
        fprintf(stderr, "datagram_load: an argument is out of range\n");
        return 2;
    }
    alarm((unsigned)(warm_up + seconds) + 15);
    fill_ring();
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    for (uint64_t i = 0; i < in_flight; i++)
        send_datagram(under_way[i] = i);

    double began = now(), started = 0, ended = 0;
    uint64_t before = 0;
    int silent = 0;
    while (!ended) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, SILENCE_MS) > 0) {
            take();
            silent = 0;
        } else if (++silent > GIVE_UP) {
            fprintf(stderr, "datagram_load: nothing came back for %d ms\n", SILENCE_MS * GIVE_UP);
            return 3;
        } else {
            for (uint64_t i = 0; i < in_flight; i++)
                send_datagram(under_way[i]);
        }
        double time = now();
        if (!started && time - began >= warm_up) {
            started = time;
            before = total;
        } else if (started && time - started >= seconds) {
            ended = time;
        }
    }
    printf("{\"count\": %llu, \"seconds\": %.6f}\n", (unsigned long long)(total - before), ended - started);
    return 0;
}
