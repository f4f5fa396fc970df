/*
 * Preloaded into the injector: kills it before or after its Nth request to the kernel about its target.
 * DIE_BEFORE=N or DIE_AFTER=N. SEIZE_REST=MICROSECONDS rests after each seize.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int count;

static void die_at(const char *name)
{
    const char *number = getenv(name);
    if (number && atoi(number) == count)
        kill(getpid(), SIGKILL);
}

typedef long ptrace_function(int request, ...);
typedef ssize_t memory_function(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long,
                                unsigned long);

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);
    count++;
    die_at("DIE_BEFORE");
    long result = ((ptrace_function *)dlsym(RTLD_NEXT, "ptrace"))((int)request, pid, address, data);
    die_at("DIE_AFTER");
    if (request == PTRACE_SEIZE && getenv("SEIZE_REST"))
        usleep((useconds_t)atoi(getenv("SEIZE_REST")));
    return result;
}

ssize_t process_vm_writev(pid_t pid, const struct iovec *here, unsigned long here_count, const struct iovec *there,
                          unsigned long there_count, unsigned long flags)
{
    count++;
    die_at("DIE_BEFORE");
    ssize_t result = ((memory_function *)dlsym(RTLD_NEXT, "process_vm_writev"))(pid, here, here_count, there,
                                                                               there_count, flags);
    die_at("DIE_AFTER");
    return result;
}
