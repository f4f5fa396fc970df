/*
 * Preloaded into the injector: kills it before or after its Nth request to the kernel about its target.
 * DIE_BEFORE=N or DIE_AFTER=N. SEIZE_REST=MICROSECONDS sleeps after each seize.
 * If another process of the injector makes the requests, that process dies.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <unistd.h>

static int count;

static void die_at(const char *name)
{
    const char *number = getenv(name);
    if (number && atoi(number) == count)
        kill(getpid(), SIGKILL);
}

typedef long ptrace_function(int request, ...);

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

/* The injector uses these calls only for its target's memory. */
#define MEMORY_CALL(name, pointer)                                                                            \
    ssize_t name(int file, pointer bytes, size_t size, off_t place)                                           \
    {                                                                                                         \
        count++;                                                                                              \
        die_at("DIE_BEFORE");                                                                                 \
        ssize_t result =                                                                                      \
            ((ssize_t(*)(int, pointer, size_t, off_t))dlsym(RTLD_NEXT, #name))(file, bytes, size, place);     \
        die_at("DIE_AFTER");                                                                                  \
        return result;                                                                                        \
    }

MEMORY_CALL(pwrite, const void *)
MEMORY_CALL(pwrite64, const void *)
