/* Where a thread runs: cpu_set_t and the CPU_* macros are GNU extensions. */
#include "CSockalive.h"

#include <sched.h>

int sockalive_processors(void)
{
    cpu_set_t allowed;
    /* EINVAL: the machine has more than this set holds. */
    return sched_getaffinity(0, sizeof allowed, &allowed) < 0 ? CPU_SETSIZE : CPU_COUNT(&allowed);
}
