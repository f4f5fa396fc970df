/* Namespaces of one's own: unshare(2) needs _GNU_SOURCE, prctl(2) is variadic. */
#include "CSockalive.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

int sockalive_unshare(int namespaces)
{
    return unshare(namespaces) < 0 ? -errno : 0;
}

int sockalive_die_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}
