/*
 * Preloaded into the injector. Before (or after) its Nth request about its target (the first seize is number 1), it
 * sets `now` for the target, and waits until the action is done, or for 50 ms. ATTACK_SHARED=FILE. With HIDE_PIDFD the
 * kernel seems to have no pidfd. A filter would do this, too, but would take rights from the injector.
 */
#define _GNU_SOURCE
#include "../common/attack.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

static struct shared *shared;

/* Runs before the injector becomes a user that may not open the file. */
__attribute__((constructor)) static void begin(void)
{
    shared = map_shared(getenv("ATTACK_SHARED"));
}

static void tell(void)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    shared->now = 1;
    syscall(SYS_futex, &shared->now, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    do {
        usleep(20);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (!shared->done && (now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 50000000L);
}

static int before(void)
{
    int number = shared && shared->is_seized ? ++shared->count : 0;
    if (number > 0 && number == shared->wanted && !shared->after)
        tell();
    return number;
}

static void after(int number)
{
    int error = errno;
    if (number > 0 && number == shared->wanted && shared->after)
        tell();
    errno = error;
}

typedef long ptrace_function(int request, ...);
typedef ssize_t vector_function(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long,
                                unsigned long);
typedef ssize_t read_function(int, void *, size_t, off_t);
typedef ssize_t write_function(int, const void *, size_t, off_t);

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);
    if (shared && request == PTRACE_SEIZE)
        shared->is_seized = 1;
    int number = before();
    long result = ((ptrace_function *)dlsym(RTLD_NEXT, "ptrace"))((int)request, pid, address, data);
    after(number);
    return result;
}

#define HOOK_VECTOR(name)                                                                                             \
    ssize_t name(pid_t pid, const struct iovec *here, unsigned long here_count, const struct iovec *there,            \
                 unsigned long there_count, unsigned long flags)                                                      \
    {                                                                                                                 \
        int number = before();                                                                                        \
        ssize_t result =                                                                                              \
            ((vector_function *)dlsym(RTLD_NEXT, #name))(pid, here, here_count, there, there_count, flags);           \
        after(number);                                                                                                \
        return result;                                                                                                \
    }

HOOK_VECTOR(process_vm_readv)
HOOK_VECTOR(process_vm_writev)

/* Only the memory of a process counts. */
static int is_memory(int fd)
{
    char path[32], link[128];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = shared && shared->is_seized ? readlink(path, link, sizeof link) : 0;
    return length > 4 && memcmp(link + length - 4, "/mem", 4) == 0;
}

#define HOOK_FILE(name, function, pointer)                                                                            \
    ssize_t name(int fd, pointer bytes, size_t size, off_t offset)                                                    \
    {                                                                                                                 \
        int number = is_memory(fd) ? before() : 0;                                                                    \
        ssize_t result = ((function *)dlsym(RTLD_NEXT, #name))(fd, bytes, size, offset);                              \
        after(number);                                                                                                \
        return result;                                                                                                \
    }

HOOK_FILE(pread, read_function, void *)
HOOK_FILE(pread64, read_function, void *)
HOOK_FILE(pwrite, write_function, const void *)
HOOK_FILE(pwrite64, write_function, const void *)

/* Both calls by number. The numbers are the same on every architecture. */
long syscall(long number, ...)
{
    va_list arguments;
    long values[6];
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        values[i] = va_arg(arguments, long);
    va_end(arguments);
    if ((number == 434 || number == 438) && getenv("HIDE_PIDFD")) {
        errno = ENOSYS;
        return -1;
    }
    return ((long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"))(number, values[0], values[1], values[2], values[3],
                                                               values[4], values[5]);
}
