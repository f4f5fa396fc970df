/* Namespaces of one's own: unshare(2) needs _GNU_SOURCE, prctl(2) is variadic. */
#include "CSockalive.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

_Static_assert(SOCKALIVE_NEW_MOUNT == CLONE_NEWNS && SOCKALIVE_NEW_USER == CLONE_NEWUSER, "unshare(2) bits");
_Static_assert(SOCKALIVE_NEW_PID == CLONE_NEWPID && SOCKALIVE_NEW_NETWORK == CLONE_NEWNET, "unshare(2) bits");

int sockalive_unshare(int namespaces)
{
    return unshare(namespaces) < 0 ? -errno : 0;
}

int sockalive_die_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}
