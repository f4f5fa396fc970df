/* One thread of another process: requests and stops; and facts that only the processor knows. */
/* This header must be first: linux/ptrace.h makes macros of the names that it declares. */
#include <sys/ptrace.h>

#include "CSockalive.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
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

int sockalive_peek(pid_t tid, uintptr_t address, uint64_t *word)
{
    /* The system call stores the word. The C library's wrapper returns it, as if it were a result. */
    return syscall(SYS_ptrace, PTRACE_PEEKDATA, tid, address, word) < 0 ? -errno : 0;
}

static int stop_status(pid_t tid, int flags)
{
    const int what = WSTOPPED | WEXITED | WNOHANG | flags;
    siginfo_t stop = {.si_pid = 0};

    if (waitid(P_PID, (id_t)tid, &stop, what | WNOWAIT) < 0)
        return errno == EINTR ? 0 : -errno;
    if (stop.si_pid == 0)
        return 0;
    if (stop.si_code == CLD_TRAPPED || stop.si_code == CLD_STOPPED)
        return stop.si_status;
    /* Reap the thread; otherwise its parent is not notified. */
    waitid(P_PID, (id_t)tid, &stop, what);
    return -ECHILD;
}

int sockalive_stop_status(pid_t tid)
{
    return stop_status(tid, __WALL);
}

int sockalive_process_stop_status(pid_t tid)
{
    return stop_status(tid, 0);
}

bool sockalive_waits_for_threads(void)
{
    siginfo_t none;

    /* No process is its own child: ECHILD. The kernel checks the flags before that (kernel/exit.c). */
    return waitid(P_PID, (id_t)getpid(), &none, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 && errno == ECHILD;
}

int sockalive_take_status(pid_t tid)
{
    int status;
    pid_t found = wait4(tid, &status, __WALL | WNOHANG, NULL);

    if (found < 0)
        return errno == EINTR ? 0 : -errno;
    if (found == 0)
        return 0;
    return WIFSTOPPED(status) ? status >> 8 : -ECHILD;
}

int sockalive_rseq_error(void)
{
#if defined(SOCKALIVE_SYS_RSEQ)
    /* No thread registers a structure at address 0. */
    return syscall(SOCKALIVE_SYS_RSEQ, NULL, 0, 0, 0) < 0 ? errno : 0;
#else
    return ENOSYS;
#endif
}

int sockalive_suspension_error(void)
{
    pid_t parent = getpid(), child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        while (getppid() == parent)
            pause();
        _exit(0);
    }
    if (child < 0)
        return errno;
    int error = sockalive_ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_SUSPEND_SECCOMP);
    kill(child, SIGKILL);
    while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
        ;
    return -error;
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
