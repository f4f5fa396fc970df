/* One thread of another process: requests and stops; and facts that only the processor knows. */
/* This header must be first: linux/ptrace.h makes macros of the names that it declares. */
#include <sys/ptrace.h>

#include "CSockalive.h"

#include <errno.h>
#include <sys/user.h>
#include <sys/wait.h>
#if defined(__x86_64__)
#include <cpuid.h>

_Static_assert(sizeof(struct sockalive_registers) == sizeof(struct user_regs_struct), "as ptrace lays them out");
_Static_assert(offsetof(struct sockalive_registers, orig_rax) == offsetof(struct user_regs_struct, orig_rax) &&
                   offsetof(struct sockalive_registers, eflags) == offsetof(struct user_regs_struct, eflags) &&
                   offsetof(struct sockalive_registers, gs) == offsetof(struct user_regs_struct, gs), "in its order");
#endif

int sockalive_ptrace(int request, pid_t tid, uintptr_t address, uintptr_t data)
{
    return ptrace((enum __ptrace_request)request, tid, (void *)address, (void *)data) < 0 ? -errno : 0;
}

int sockalive_stop_status(pid_t tid)
{
    const int what = WSTOPPED | WEXITED | WNOHANG | __WALL;
    siginfo_t stop = {.si_pid = 0};

    if (waitid(P_PID, (id_t)tid, &stop, what | WNOWAIT) < 0)
        return errno == EINTR ? 0 : -ESRCH;
    if (stop.si_pid == 0)
        return 0;
    if (stop.si_code == CLD_TRAPPED || stop.si_code == CLD_STOPPED)
        return stop.si_status;
    /* Reap the thread; otherwise its parent is not notified. */
    waitid(P_PID, (id_t)tid, &stop, what);
    return -ESRCH;
}

uint32_t sockalive_xsave_end(unsigned feature)
{
#if defined(__x86_64__)
    unsigned size, offset, flags, unused;

    if (__get_cpuid_count(0xd, feature, &size, &offset, &flags, &unused))
        return offset + size;
#endif
    (void)feature;
    return 0;
}
