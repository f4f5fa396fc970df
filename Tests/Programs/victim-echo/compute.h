/*
 * A computation that detects changes from outside: its state is in every register class of the machine for a whole
 * round, and each bit of the state affects the digest.
 */
#ifndef COMPUTE_H
#define COMPUTE_H

#include <stdint.h>

struct computation {
    uint64_t general[13];                        /* rax rbx rcx rdx rbp r8-r15; a round mixes them */
    uint64_t red_zone[16];                       /* the 128 bytes below the stack pointer */
    _Alignas(32) double chaos[12][4];            /* ymm0-11 (or xmm0-11): x = 3.99 x (1 - x), each lane its own */
    _Alignas(32) double factor[4], one[4];       /* ymm14, ymm15 */
    _Alignas(64) uint64_t upper[16][8];          /* zmm16-31, held over the round; AVX-512 only */
    uint64_t mask[7];                            /* k1-k7, likewise */
    double extended[2];                          /* x87: the chaos, and 3.99 */
    int vectors;                                 /* 0: SSE2, 1: AVX, 2: AVX-512 */
};

void compute_start(struct computation *computation);

/* Some tens of microseconds. */
void compute_round(struct computation *computation);

uint64_t compute_digest(const struct computation *computation);

#endif
