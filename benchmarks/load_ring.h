/* What the loads in C share: the bytes that they send and compare, the clock, and the end after a fault.
 *
 * Whoever includes this has defined RING_REPEATS: how many bytes of the beginning stand again at the
 * end of the ring, so that no access wraps. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RING = 1048573, STRIDE = 7919 };

static char ring[RING + RING_REPEATS];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fill_ring(void) {
    uint64_t state = 0x9e3779b97f4a7c15u; /* xorshift64: Marsaglia, "Xorshift RNGs", 2003 */
    for (size_t i = 0; i < RING; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ring[i] = (char)(state >> 24);
    }
    memcpy(ring + RING, ring, RING_REPEATS);
}
