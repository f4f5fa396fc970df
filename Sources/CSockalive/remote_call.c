/*
 * A system call inside another process, without a trace left behind.
 *
 * hold      SEIZE, INTERRUPT, wait; block the thread's signals; note registers and memory
 * remote_*  put the call's arguments below the stack, run the target's own instruction
 * release   back to the kind of stop that hold made, put everything back, DETACH
 *
 * Release ends where hold began, inside the kernel's signal handling (get_signal), with the
 * registers as they were found there, an interrupted call's -ERESTART code included. So the
 * kernel itself restarts the call, or delivers a signal that came meanwhile and answers EINTR
 * where that is due. Nobody else can decide that without a race.
 */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SYSCALL_STOP (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */
#define SPIN_NS 200000

/* What a call reads and writes, in the target's memory. */
struct scratch {
    uint8_t value[SOCKALIVE_OPTION_MAX];
    uint32_t length;
};

struct sockalive_tracee {
    struct target target;
    struct arch_registers found; /* as they were in the first stop; nothing else ever goes back */
    uint64_t mask;               /* the thread's blocked signals */
    uint64_t scratch;            /* where struct scratch lies in the target */
    struct scratch saved;        /* what lay there before */
    int timeout_ms;
    int64_t running_until; /* when it was last known to run */
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int request(const struct sockalive_tracee *tracee, int name, uintptr_t address, uintptr_t data)
{
    return ptrace((enum __ptrace_request)name, tracee->target.tid, (void *)address, (void *)data) < 0 ? -errno : 0;
}

/*
 * Waits for any stop: its status as in waitid's si_status, -ESRCH if the thread ended, -ETIMEDOUT.
 * WNOWAIT leaves the stop's signal with the kernel: were it consumed and then this process
 * killed, a signal about to be delivered would be lost (ptrace_stop returns exit_code).
 */
static int await_stop(struct sockalive_tracee *tracee, bool until_stopped)
{
    const int what = WSTOPPED | WEXITED | __WALL;
    int64_t start = now_ns(), now = start;
    do {
        siginfo_t stop = {.si_pid = 0};
        if (until_stopped)
            tracee->running_until = now;
        if (waitid(P_PID, (id_t)tracee->target.tid, &stop, what | WNOHANG | WNOWAIT) < 0 && errno != EINTR)
            return -ESRCH;
        if (stop.si_pid != 0 && stop.si_code != CLD_TRAPPED && stop.si_code != CLD_STOPPED) {
            /* Reap it, or its parent is not told. */
            waitid(P_PID, (id_t)tracee->target.tid, &stop, what | WNOHANG);
            return -ESRCH;
        }
        if (stop.si_pid != 0)
            return stop.si_status;
        now = now_ns();
        if (now - start < SPIN_NS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    } while (now - start < (int64_t)tracee->timeout_ms * 1000000);
    return -ETIMEDOUT;
}

static bool is_event_stop(int status)
{
    return status >> 8 == PTRACE_EVENT_STOP;
}

/* Of a stop that is not the one waited for, the signal to go on with: its own if it delivers one. */
static int passed_on(int status)
{
    return status == SYSCALL_STOP || is_event_stop(status) ? 0 : status;
}

/* Runs the thread, by PTRACE_CONT or PTRACE_SYSCALL, to the event stop or system-call stop that ends it. */
static int run_to(struct sockalive_tracee *tracee, int how)
{
    for (;;) {
        int status = await_stop(tracee, tracee->running_until == 0);
        if (status < 0)
            return status;
        if (how == PTRACE_CONT ? is_event_stop(status) : status == SYSCALL_STOP)
            return 0;
        int error = request(tracee, how, 0, (uintptr_t)passed_on(status));
        if (error)
            return error;
    }
}

/* From any stop, or from running, to an event stop. */
static int interrupt(struct sockalive_tracee *tracee, bool stopped)
{
    int error = request(tracee, PTRACE_INTERRUPT, 0, 0);
    if (error == 0 && stopped)
        error = request(tracee, PTRACE_CONT, 0, 0);
    return error ? error : run_to(tracee, PTRACE_CONT);
}

static int copy(const struct sockalive_tracee *tracee, bool out, uint64_t address, void *bytes, size_t size)
{
    struct iovec here = {bytes, size}, there = {(void *)address, size};
    ssize_t done = out ? process_vm_writev(tracee->target.tid, &here, 1, &there, 1, 0)
                       : process_vm_readv(tracee->target.tid, &here, 1, &there, 1, 0);
    return done < 0 ? -errno : (size_t)done == size ? 0 : -EFAULT;
}

static int set_mask(const struct sockalive_tracee *tracee, uint64_t mask)
{
    return request(tracee, PTRACE_SETSIGMASK, sizeof mask, (uintptr_t)&mask);
}

/* While it is held: is everything as it was found to be before? */
static int prepare(struct sockalive_tracee *tracee, enum sockalive_stage *stage)
{
    struct target *target = &tracee->target;
    *stage = SOCKALIVE_STAGE_PREPARE;
    int error = arch_read(target->tid, &tracee->found);
    if (error == -EOPNOTSUPP)
        *stage = SOCKALIVE_STAGE_UNSUPPORTED;
    if (error)
        return error;
    if (!target_is_socket(target, target->tid, target->fd)) {
        *stage = SOCKALIVE_STAGE_DESCRIPTOR;
        return -ESTALE;
    }
    uint64_t top = arch_free_stack(&tracee->found);
    if (!target_has_stack(target, top, sizeof(struct scratch)))
        return -EFAULT;
    tracee->scratch = top - sizeof(struct scratch);
    error = request(tracee, PTRACE_GETSIGMASK, sizeof tracee->mask, (uintptr_t)&tracee->mask);
    if (error == 0)
        error = copy(tracee, false, tracee->scratch, &tracee->saved, sizeof tracee->saved);
    /* A blocked signal stays pending, in its queue and its order, until release. */
    return error ? error : set_mask(tracee, UINT64_MAX);
}

int sockalive_hold(pid_t pid, int fd, uint64_t inode, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info)
{
    *info = (struct sockalive_hold){.stage = SOCKALIVE_STAGE_PREPARE};
    struct sockalive_tracee *tracee = calloc(1, sizeof *tracee);
    if (!tracee)
        return -ENOMEM;
    tracee->target.pid = pid;
    tracee->target.fd = fd;
    tracee->target.inode = inode;
    tracee->timeout_ms = timeout_ms;
    int error = target_inspect(&tracee->target, &info->stage);
    info->tid = tracee->target.tid;
    if (error)
        goto out_free;

    info->stage = SOCKALIVE_STAGE_SEIZE;
    error = request(tracee, PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD);
    if (error)
        goto out_free;
    info->stage = SOCKALIVE_STAGE_STOP;
    error = interrupt(tracee, false);
    if (error)
        goto out_detach;
    error = prepare(tracee, &info->stage);
    if (error)
        goto out_detach;
    info->stage = SOCKALIVE_STAGE_NONE;
    *out = tracee;
    return 0;

out_detach:
    /* Fails if it never stopped: then it is let go when this thread ends. */
    request(tracee, PTRACE_DETACH, 0, 0);
    if (error == -ESRCH)
        info->stage = SOCKALIVE_STAGE_GONE;
out_free:
    free(tracee);
    return error;
}

void sockalive_release(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    if (interrupt(tracee, true) == 0) {
        set_mask(tracee, tracee->mask);
        arch_write(tracee->target.tid, &tracee->found);
        copy(tracee, true, tracee->scratch, &tracee->saved, sizeof tracee->saved);
    }
    request(tracee, PTRACE_DETACH, 0, 0);
    info->paused_ns = now_ns() - tracee->running_until;
    free(tracee);
}

/* One system call in the target, from instruction to result. */
static int remote_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[5],
                       int64_t *result)
{
    struct arch_registers registers = tracee->found;
    arch_set_call(&registers, &tracee->target.code, call, arguments);
    int error = arch_write(tracee->target.tid, &registers);
    for (int stop = 0; stop < 2 && error == 0; stop++) { /* entry, then exit */
        error = request(tracee, PTRACE_SYSCALL, 0, 0);
        if (error == 0)
            error = run_to(tracee, PTRACE_SYSCALL);
    }
    if (error == -ETIMEDOUT) /* frozen, perhaps: back to a stop from which it can be let go */
        interrupt(tracee, false);
    return error ? error : arch_result(tracee->target.tid, result);
}

static int remote_option(struct sockalive_tracee *tracee, enum arch_call call, int level, int name,
                         struct scratch *scratch, struct sockalive_hold *info)
{
    uint64_t value = tracee->scratch, length = tracee->scratch + offsetof(struct scratch, length);
    uint64_t arguments[5] = {(uint64_t)tracee->target.fd, (uint64_t)level, (uint64_t)name, value,
                             call == ARCH_GETSOCKOPT ? length : scratch->length};
    int64_t result = 0;
    info->stage = SOCKALIVE_STAGE_CALL;
    int error = copy(tracee, true, tracee->scratch, scratch, sizeof *scratch);
    if (error == 0)
        error = remote_call(tracee, call, arguments, &result);
    if (error == 0 && call == ARCH_GETSOCKOPT)
        error = copy(tracee, false, tracee->scratch, scratch, sizeof *scratch);
    if (error == -ESRCH)
        info->stage = SOCKALIVE_STAGE_GONE;
    if (error)
        return error == -ESRCH ? error : -EIO;
    info->stage = SOCKALIVE_STAGE_NONE;
    return (int)result;
}

int sockalive_remote_getsockopt(struct sockalive_tracee *tracee, int level, int name, void *value,
                                uint32_t *length, struct sockalive_hold *info)
{
    if (*length > SOCKALIVE_OPTION_MAX)
        return -EINVAL;
    struct scratch scratch = {.length = *length};
    int result = remote_option(tracee, ARCH_GETSOCKOPT, level, name, &scratch, info);
    if (result == 0 && scratch.length <= *length) {
        memcpy(value, scratch.value, scratch.length);
        *length = scratch.length;
    }
    return result;
}

int sockalive_remote_setsockopt(struct sockalive_tracee *tracee, int level, int name, const void *value,
                                uint32_t length, struct sockalive_hold *info)
{
    if (length > SOCKALIVE_OPTION_MAX)
        return -EINVAL;
    struct scratch scratch = {.length = length};
    memcpy(scratch.value, value, length);
    return remote_option(tracee, ARCH_SETSOCKOPT, level, name, &scratch, info);
}

struct body {
    void (*run)(void *context);
    void *context;
};

static void *run_body(void *argument)
{
    const struct body *body = argument;
    body->run(body->context);
    return NULL;
}

int sockalive_on_own_thread(void (*body)(void *context), void *context)
{
    struct body argument = {body, context};
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run_body, &argument);
    return error ? -error : pthread_join(thread, NULL);
}
#endif
