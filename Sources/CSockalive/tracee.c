/* One traced thread: requests, waiting for stops, memory, a single call. */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SPIN_NS 200000 /* a stop comes within some microseconds, if it comes at once */

int64_t tracee_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int tracee_request(const struct sockalive_tracee *tracee, int name, uintptr_t address, uintptr_t data)
{
    return ptrace((enum __ptrace_request)name, tracee->target.tid, (void *)address, (void *)data) < 0 ? -errno : 0;
}

/*
 * Waits for any stop: its status as in waitid's si_status, -ESRCH if the thread ended, -ETIMEDOUT.
 * WNOWAIT leaves the stop's signal with the kernel: were it consumed and then this process
 * killed, a signal about to be delivered would be lost (ptrace_stop returns exit_code).
 *
 * Measured on a virtual machine with 2 CPUs, for a resume and the stop after it: yielding 5.7 us,
 * blocking in waitid 6.9 us (and that has no timeout), spinning 9.2 us. To run on the target's CPU
 * changes nothing: the kernel wakes the target on the idle one.
 */
static int await_stop(struct sockalive_tracee *tracee)
{
    const int what = WSTOPPED | WEXITED | WNOHANG | __WALL;
    int64_t start = tracee_now(), now = start;
    do {
        siginfo_t stop = {.si_pid = 0};
        if (!tracee->was_stopped)
            tracee->running_until = now;
        if (waitid(P_PID, (id_t)tracee->target.tid, &stop, what | WNOWAIT) < 0 && errno != EINTR)
            return -ESRCH;
        if (stop.si_pid != 0 && stop.si_code != CLD_TRAPPED && stop.si_code != CLD_STOPPED) {
            /* Reap it, or its parent is not told. */
            waitid(P_PID, (id_t)tracee->target.tid, &stop, what);
            return -ESRCH;
        }
        if (stop.si_pid != 0)
            return stop.si_status;
        now = tracee_now();
        if (now - start < SPIN_NS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    } while (now - start < (int64_t)tracee->timeout_ms * 1000000);
    return -ETIMEDOUT;
}

int tracee_run_to(struct sockalive_tracee *tracee, int how, int wanted)
{
    for (;;) {
        int status = await_stop(tracee);
        if (status < 0)
            return status;
        if (status >> 8 == PTRACE_EVENT_STOP)
            status = EVENT_STOP;
        /* An event stop and a signal's are made by get_signal: release may end there. */
        tracee->in_signal_handling = status != SYSCALL_STOP;
        if (status == wanted) {
            tracee->was_stopped = true;
            return 0;
        }
        int signal = status == SYSCALL_STOP || status == EVENT_STOP ? 0 : status;
        int error = tracee_request(tracee, how, 0, (uintptr_t)signal);
        if (error)
            return error;
    }
}

int tracee_interrupt(struct sockalive_tracee *tracee, bool stopped)
{
    int error = tracee_request(tracee, PTRACE_INTERRUPT, 0, 0);
    if (error == 0 && stopped)
        error = tracee_request(tracee, PTRACE_CONT, 0, 0);
    return error ? error : tracee_run_to(tracee, PTRACE_CONT, EVENT_STOP);
}

int tracee_write(const struct sockalive_tracee *tracee, uint64_t address, const void *bytes, size_t size)
{
    struct iovec here = {(void *)bytes, size}, there = {(void *)address, size};
    ssize_t done = process_vm_writev(tracee->target.tid, &here, 1, &there, 1, 0);
    return done < 0 ? -errno : (size_t)done == size ? 0 : -EFAULT;
}

ssize_t sockalive_read_memory(pid_t tid, uint64_t address, void *bytes, size_t size)
{
    struct iovec here = {bytes, size}, there = {(void *)address, size};
    ssize_t done = process_vm_readv(tid, &here, 1, &there, 1, 0);
    return done < 0 ? -errno : done;
}

int tracee_read(const struct sockalive_tracee *tracee, uint64_t address, void *bytes, size_t size)
{
    ssize_t done = sockalive_read_memory(tracee->target.tid, address, bytes, size);
    return done < 0 ? (int)done : (size_t)done == size ? 0 : -EFAULT;
}

int tracee_set_mask(const struct sockalive_tracee *tracee, uint64_t mask)
{
    return tracee_request(tracee, PTRACE_SETSIGMASK, sizeof mask, (uintptr_t)&mask);
}

int tracee_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6], uint64_t stack,
                uint64_t array, int64_t *result)
{
    struct arch_registers registers = tracee->found;
    arch_set_call(&registers, &tracee->target, call, arguments, stack, array);
    int error = arch_write(tracee->target.tid, &registers);
    for (int stop = 0; stop < 2 && error == 0; stop++) { /* entry, then exit */
        error = tracee_request(tracee, PTRACE_SYSCALL, 0, 0);
        if (error == 0)
            error = tracee_run_to(tracee, PTRACE_SYSCALL, SYSCALL_STOP);
    }
    if (error == -ETIMEDOUT) /* frozen, perhaps: back to a stop from which it can be let go */
        tracee_interrupt(tracee, false);
    return error ? error : arch_result(tracee->target.tid, tracee->target.is_32_bit, result);
}
#endif
