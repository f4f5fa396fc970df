/* Where a thread runs: the CPU_* macros and sched_getcpu(3) are GNU extensions. */
#include "CSockalive.h"

#include <sched.h>

int sockalive_processors(void)
{
    cpu_set_t allowed;
    /* EINVAL: the machine has more than this set holds. */
    return sched_getaffinity(0, sizeof allowed, &allowed) < 0 ? CPU_SETSIZE : CPU_COUNT(&allowed);
}

int sockalive_start_on_other_cpu(pthread_t *thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t elsewhere;
    cpu_set_t allowed, others;

    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return -pthread_create(thread, NULL, run, argument);
    others = allowed;
    CPU_CLR(sched_getcpu(), &others);
    pthread_attr_init(&elsewhere);
    pthread_attr_setaffinity_np(&elsewhere, sizeof others, &others);
    int error = pthread_create(thread, &elsewhere, run, argument);
    pthread_attr_destroy(&elsewhere);
    /* Refused where there is no other processor, or by a sandbox: then it starts where the kernel likes. */
    if (error)
        return -pthread_create(thread, NULL, run, argument);
    pthread_setaffinity_np(*thread, sizeof allowed, &allowed);
    return 0;
}
