/* The limit of the echo family: a single-threaded, level-triggered epoll server in plain C.
 *
 *   echo_epoll --lifetime SECONDS
 *
 * Listens on 127.0.0.1 at a free port, prints "127.0.0.1:PORT" and echoes until it is ended.
 * A connection whose peer does not take its bytes is not read from until it does, so that
 * memory stays at one buffer each.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, BATCH = 256, BACKLOG = 1024 };

struct connection {
    int fd;
    size_t start, end; /* what of `rest` still has to be sent */
    char rest[BUFFER];
};

static char received[BUFFER];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int poller, int operation, int fd, unsigned events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poller, operation, fd, &event) < 0)
        fail("epoll_ctl");
}

static void drop(struct connection *peer) {
    close(peer->fd);
    free(peer);
}

/* Sends the bytes, as many as go: their number, or -1 when the peer is gone. */
static ssize_t offer(int fd, const char *bytes, size_t size) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void echo(int poller, struct connection *peer) {
    ssize_t size = recv(peer->fd, received, sizeof received, 0);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN)
            drop(peer);
        return;
    }
    ssize_t sent = offer(peer->fd, received, (size_t)size);
    if (sent < 0) {
        drop(peer);
    } else if (sent < size) {
        peer->start = 0;
        peer->end = (size_t)(size - sent);
        memcpy(peer->rest, received + sent, peer->end);
        watch(poller, EPOLL_CTL_MOD, peer->fd, EPOLLOUT, peer);
    }
}

static void send_rest(int poller, struct connection *peer) {
    ssize_t sent = offer(peer->fd, peer->rest + peer->start, peer->end - peer->start);
    if (sent < 0) {
        drop(peer);
        return;
    }
    peer->start += (size_t)sent;
    if (peer->start == peer->end)
        watch(poller, EPOLL_CTL_MOD, peer->fd, EPOLLIN, peer);
}

static void welcome(int poller, int listener) {
    int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *peer = malloc(sizeof *peer);
    if (!peer)
        fail("malloc");
    peer->fd = fd;
    watch(poller, EPOLL_CTL_ADD, fd, EPOLLIN, peer);
}

int main(int argc, char **argv) {
    if (argc != 3 || strcmp(argv[1], "--lifetime") != 0) {
        fprintf(stderr, "usage: echo_epoll --lifetime SECONDS\n");
        return 2;
    }
    alarm((unsigned)atoi(argv[2]));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, BACKLOG) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fail("listen");
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        fail("epoll_create1");
    watch(poller, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    printf("127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    struct epoll_event ready[BATCH];
    for (;;) {
        int count = epoll_wait(poller, ready, BATCH, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *peer = ready[i].data.ptr;
            if (!peer)
                welcome(poller, listener);
            else if (ready[i].events & EPOLLOUT)
                send_rest(poller, peer);
            else
                echo(poller, peer);
        }
    }
}
