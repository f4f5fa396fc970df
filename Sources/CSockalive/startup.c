/*
 * What has to be done before Swift's runtime starts: a constructor.
 *
 * In a static program the runtime looks for its own path in /proc before main(), and aborts where there is none
 * (stdlib/public/runtime/Paths.cpp). SWIFT_ROOT answers it. Nothing of this program lies under that path.
 *
 * The runtime also finds the command line in front of the environment as the kernel laid it. So the environment is not
 * copied, as setenv(3) would: its last entry gives way, and is put back in main(). Without an entry nothing is done.
 */
#include "CSockalive.h"

#include <stddef.h>
#include <unistd.h>

static char answer[] = "SWIFT_ROOT=/";
static char **place, *kept;

/* Before the runtime's own constructors, which have no priority. */
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
