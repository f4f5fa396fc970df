/*
 * A constructor that runs before Swift's runtime starts.
 *
 * In a static program the runtime looks for its own path in /proc before main(), and aborts if there is no /proc
 * (stdlib/public/runtime/Paths.cpp). SWIFT_ROOT gives it a path. Nothing of this program is under that path.
 *
 * The runtime finds the command line before the environment, at the place where the kernel put both. setenv(3) would
 * copy the environment, so it is not used. Instead the last entry is replaced, and main() restores it. If the
 * environment is empty, nothing is done.
 */
#include "CSockalive.h"

#include <stddef.h>
#include <unistd.h>

static char answer[] = "SWIFT_ROOT=/";
static char **place, *kept;

/* This priority comes before the runtime's own constructors, which have none. */
__attribute__((constructor(101))) static void answer_for_runtime(void)
{
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
