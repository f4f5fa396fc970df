#include "compute.h"

#include <stddef.h>
#include <string.h>

#define STEPS 4000

static const uint64_t odd = 0x9e3779b97f4a7c15u;

#if defined(__x86_64__)

/* round.S uses these offsets. */
_Static_assert(offsetof(struct computation, red_zone) == 104, "RED_ZONE");
_Static_assert(offsetof(struct computation, chaos) == 256, "CHAOS");
_Static_assert(offsetof(struct computation, factor) == 640, "FACTOR");
_Static_assert(offsetof(struct computation, one) == 672, "ONE");
_Static_assert(offsetof(struct computation, upper) == 704, "UPPER");
_Static_assert(offsetof(struct computation, mask) == 1728, "MASK");
_Static_assert(offsetof(struct computation, extended) == 1784, "EXTENDED");
_Static_assert(offsetof(struct computation, vectors) == 1800, "VECTORS");

void victim_round(struct computation *computation, uint64_t steps);

static int vectors(void)
{
    return __builtin_cpu_supports("avx512bw") ? 2 : __builtin_cpu_supports("avx") ? 1 : 0;
}

#else

/* On other architectures the compiler chooses the registers. */
static void victim_round(struct computation *c, uint64_t steps)
{
    while (steps-- > 0) {
        for (int i = 0; i < 13; i++)
            c->general[i] = (c->general[i] + c->general[(i + 12) % 13]) * odd;
        for (int i = 0; i < 12; i++)
            c->chaos[i][0] = c->factor[0] * c->chaos[i][0] * (c->one[0] - c->chaos[i][0]);
    }
}

static int vectors(void)
{
    return 0;
}

#endif

void compute_start(struct computation *c)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 13; i++)
        c->general[i] = odd * (uint64_t)(i + 1);
    for (int i = 0; i < 16; i++)
        c->red_zone[i] = ~odd * (uint64_t)(i + 1);
    for (int i = 0; i < 48; i++)
        c->chaos[i / 4][i % 4] = 0.1 + i / 64.0;
    for (int i = 0; i < 4; i++) {
        c->factor[i] = 3.99;
        c->one[i] = 1;
    }
    c->extended[0] = 0.3;
    c->extended[1] = 3.99;
    c->vectors = vectors();
}

void compute_round(struct computation *c)
{
    /* The values that a round only holds are changed between rounds. */
    for (int i = 0; i < 128; i++)
        c->upper[i / 8][i % 8] = (c->upper[i / 8][i % 8] + (uint64_t)i + 1) * odd;
    for (int i = 0; i < 7; i++)
        c->mask[i] = (c->mask[i] + (uint64_t)i + 1) * odd;
    victim_round(c, STEPS);
}

/* FNV-1a over the whole state. */
uint64_t compute_digest(const struct computation *c)
{
    const unsigned char *bytes = (const unsigned char *)c;
    uint64_t digest = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof *c; i++)
        digest = (digest ^ bytes[i]) * 0x100000001b3u;
    return digest;
}
