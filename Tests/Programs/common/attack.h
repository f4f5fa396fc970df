/* Shared by the attacker, its privileged program, the injector's library and the driver. */
#ifndef ATTACK_H
#define ATTACK_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * In the set-user-ID program: a function that is never called, and memory that stays zero. The attacker has its own
 * code and its stack at the same addresses.
 */
#define CODE_ADDRESS 0x20000000UL
#define AREA_ADDRESS 0x30000000UL
#define AREA_SIZE 0x40000UL
#define AREA_END (AREA_ADDRESS + AREA_SIZE)

/* A user that owns nothing. */
#define ATTACKER_USER 65534

/* A file that all of them map. */
struct shared {
    /* Steps: the request of the injector at which to act, and whether to act after it. */
    atomic_int count, wanted, after, is_seized;
    /* now: act. done: the action is done. */
    atomic_int now, done;
    /* Slow pages: the held process, and whether a read of it waits. */
    atomic_int target, is_reading;
    /* Everything for one try is ready. */
    atomic_int is_ready;
    /* The number of earlier tries. An attack varies with it. */
    atomic_int tries_before;
};

static inline struct shared *map_shared(const char *path)
{
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared = fd < 0 ? MAP_FAILED
                          : mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (fd >= 0)
        close(fd);
    return shared == MAP_FAILED ? NULL : shared;
}

#endif
