/*
 * A constructor that runs before Swift's runtime starts, in a static program.
 *
 * Swift's runtime takes a random seed for its hash tables before main() (stdlib/public/stubs/GlobalObjects.cpp). Early
 * in boot getrandom(2) waits until the kernel has entropy, which may take minutes, and nothing in main() could end that.
 * So the wait is made here, and has an end: the time limit of the command line.
 *
 * In a static program the runtime looks for its own path in /proc before main(), and aborts if there is no /proc
 * (stdlib/public/runtime/Paths.cpp). SWIFT_ROOT gives it a path. Nothing of this program is under that path.
 *
 * The runtime finds the command line before the environment, at the place where the kernel put both. setenv(3) would
 * copy the environment, so it is not used. Instead the last entry is replaced, and main() restores it. If the
 * environment is empty, nothing is done. A program that has an interpreter (AT_BASE, getauxval(3)) is not static.
 */
#include "CSockalive.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* That of RunOptions. */
enum { DEFAULT_TIMEOUT = 10 };

/* `90`, `90s`, `15m`, `2h`, `1h30m`; 0: not a time. main() judges it again. */
static long seconds(const char *text)
{
    long sum = 0;

    while (*text) {
        char *rest;
        long number = strtol(text, &rest, 10);
        if (rest == text || number < 0 || number > 1000000)
            return 0;
        sum += number * (*rest == 'h' ? 3600 : *rest == 'm' ? 60 : 1);
        text = *rest ? rest + 1 : rest;
    }
    return sum;
}

static long time_limit(int argc, char **argv)
{
    static const char option[] = "--timeout";
    const size_t length = sizeof option - 1;
    long limit = 0;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], option, length) != 0)
            continue;
        if (argv[i][length] == '=')
            limit = seconds(argv[i] + length + 1);
        else if (argv[i][length] == 0 && i + 1 < argc)
            limit = seconds(argv[i + 1]);
    }
    return limit > 0 ? limit : DEFAULT_TIMEOUT;
}

static bool has_random_numbers(void)
{
    char byte;
    /* ENOSYS before Linux 3.17: /dev/urandom serves, and never waits. */
    return getrandom(&byte, sizeof byte, GRND_NONBLOCK) >= 0 || errno != EAGAIN;
}

static void await_random_numbers(int argc, char **argv)
{
    static const char message[] =
        "sockalive: this machine has no random numbers yet (early in boot), and nothing was done: run it later\n";
    const struct timespec pause = {.tv_nsec = 50000000};

    if (has_random_numbers())
        return;
    for (long rest = 20 * time_limit(argc, argv); rest > 0; rest--) {
        nanosleep(&pause, NULL);
        if (has_random_numbers())
            return;
    }
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
        _exit(1);
    _exit(1);
}

static char answer[] = "SWIFT_ROOT=/";
static char **place, *kept;

/* This priority comes before the runtime's own constructors, which have none. */
__attribute__((constructor(101))) static void answer_for_runtime(int argc, char **argv)
{
    /* Another program, which has this as a library, would not get its last entry back. */
    if (getauxval(AT_BASE) != 0)
        return;
    /* glibc gives constructors the arguments of main(); others may not. */
    if (argc > 0 && argv)
        await_random_numbers(argc, argv);
    for (char **entry = environ; entry && *entry; entry++)
        place = entry;
    if (place) {
        kept = *place;
        *place = answer;
    }
}

void sockalive_end_startup(void)
{
    if (place)
        *place = kept;
}
