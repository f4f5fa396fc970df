/*
 * A system call inside another process, without a trace left behind.
 *
 *   hold      SEIZE, INTERRUPT, wait for the stop; spread the parachute; block the thread's signals
 *   remote_*  run the target's own system call instruction, its stack pointer at the parachute
 *   release   back to the kind of stop that hold made; put everything back; DETACH
 *
 * The parachute is a signal frame (struct pad): should this process be killed at any instant, the
 * kernel lets the target run, the call returns, its `ret` lands in rt_sigreturn, and the kernel
 * itself loads what the thread had. That holds in system-call and event stops, not in the signal
 * stop that a single step would make: a tracer's death there delivers the SIGTRAP.
 *
 * Release ends where hold began, inside the kernel's signal handling (get_signal), with the
 * registers as they were found there, an interrupted call's -ERESTART code included. So the
 * kernel itself takes that call up again, or delivers a signal that came meanwhile and answers
 * EINTR where that is due. Nobody else can decide it without a race.
 */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SYSCALL_STOP (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */
#define SPIN_NS 200000

/* What one call reads and writes. */
struct slot {
    uint32_t arguments[5]; /* for calls that want them in memory */
    uint32_t length;
    uint8_t value[SOCKALIVE_OPTION_MAX];
};

/*
 * What the target holds below its stack pointer meanwhile; the stack grows downwards, so this is
 * read from the bottom. A call's `ret` falls into `close`, that one's into `restore`.
 */
struct pad {
    struct slot slot;
    uint8_t close[ARCH_FRAME_SIZE];   /* runs close(duplicate) */
    uint8_t restore[ARCH_FRAME_SIZE]; /* loads what was found */
    uint8_t floating[ARCH_FLOATING_MAX] __attribute__((aligned(64)));
};

struct sockalive_tracee {
    struct target target;
    struct arch_registers found; /* as release puts them back */
    uint64_t mask;               /* the thread's blocked signals */
    uint64_t pad;                /* where struct pad lies in the target */
    size_t pad_size;
    uint64_t mapped, mapped_size; /* the mapping made for it; 0: it is on the stack */
    int descriptor;  /* fd, or a duplicate that no other thread knows */
    int timeout_ms;
    int64_t running_until; /* when it was last known to run */
    struct pad ours;
    uint8_t saved[sizeof(struct pad)]; /* what lay in the pad's place */
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
static int await_stop(struct sockalive_tracee *tracee, bool first)
{
    const int what = WSTOPPED | WEXITED | WNOHANG | __WALL;
    int64_t start = now_ns(), now = start;
    do {
        siginfo_t stop = {.si_pid = 0};
        if (first)
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

/*
 * Runs the thread to the stop wanted: by PTRACE_CONT to an event stop, by PTRACE_SYSCALL to a
 * system-call stop. A stop that is not ours is handed back: a signal is delivered, a group stop
 * stays in effect (detaching the thread puts it back into that).
 */
static int run_to(struct sockalive_tracee *tracee, int how, bool first)
{
    for (;;) {
        int status = await_stop(tracee, first);
        if (status < 0)
            return status;
        if (how == PTRACE_CONT ? is_event_stop(status) : status == SYSCALL_STOP)
            return 0;
        int signal = status == SYSCALL_STOP || is_event_stop(status) ? 0 : status;
        int error = request(tracee, how, 0, (uintptr_t)signal);
        if (error)
            return error;
    }
}

/* From a stop, or from running, to an event stop. */
static int interrupt(struct sockalive_tracee *tracee, bool stopped, bool first)
{
    int error = request(tracee, PTRACE_INTERRUPT, 0, 0);
    if (error == 0 && stopped)
        error = request(tracee, PTRACE_CONT, 0, 0);
    return error ? error : run_to(tracee, PTRACE_CONT, first);
}

static int read_memory(const struct sockalive_tracee *tracee, uint64_t address, void *bytes, size_t size)
{
    struct iovec here = {bytes, size}, there = {(void *)address, size};
    ssize_t done = process_vm_readv(tracee->target.tid, &here, 1, &there, 1, 0);
    return done < 0 ? -errno : (size_t)done == size ? 0 : -EFAULT;
}

static int write_memory(const struct sockalive_tracee *tracee, uint64_t address, const void *bytes, size_t size)
{
    struct iovec here = {(void *)bytes, size}, there = {(void *)address, size};
    ssize_t done = process_vm_writev(tracee->target.tid, &here, 1, &there, 1, 0);
    return done < 0 ? -errno : (size_t)done == size ? 0 : -EFAULT;
}

static int set_mask(const struct sockalive_tracee *tracee, uint64_t mask)
{
    return request(tracee, PTRACE_SETSIGMASK, sizeof mask, (uintptr_t)&mask);
}

/* One system call in the target, from instruction to result, with its stack pointer at stack. */
static int remote_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6],
                       uint64_t stack, int64_t *result)
{
    struct arch_registers registers = tracee->found;
    arch_set_call(&registers, &tracee->target.code, call, arguments, stack,
                  tracee->pad + offsetof(struct pad, slot.arguments));
    int error = arch_write(tracee->target.tid, &registers);
    for (int stop = 0; stop < 2 && error == 0; stop++) { /* entry, then exit */
        error = request(tracee, PTRACE_SYSCALL, 0, 0);
        if (error == 0)
            error = run_to(tracee, PTRACE_SYSCALL, false);
    }
    if (error == -ETIMEDOUT) /* frozen, perhaps: back to a stop from which it can be let go */
        interrupt(tracee, false, false);
    return error ? error : arch_result(tracee->target.tid, tracee->target.code.kind, result);
}

static uint64_t pad_address(const struct sockalive_tracee *tracee, size_t offset)
{
    return tracee->pad + offset;
}

/* As remote_call, over the parachute: the call's own answer, or why it did not come to its end. */
static int call_safely(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6],
                       int64_t *result)
{
    return remote_call(tracee, call, arguments, pad_address(tracee, offsetof(struct pad, close)), result);
}

/*
 * Where to put the pad: on the thread's own stack; or, where that is not safe or too small, in a
 * mapping made for it by a call that needs no memory. Killed during that call, or during the one
 * that takes the mapping away, the target is lost: that road does not count as crash-safe.
 */
static int place_pad(struct sockalive_tracee *tracee)
{
    enum arch_kind kind = tracee->target.code.kind;
    size_t size = tracee->pad_size;
    uint64_t top = arch_free_stack(kind, &tracee->found);
    if (!target_has_stack(&tracee->target, top, size + 64)) {
        uint64_t length = (size + 64 + 4095) & ~(uint64_t)4095;
        uint64_t arguments[6] = {0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
        int64_t address;
        int error = set_mask(tracee, UINT64_MAX);
        if (error == 0)
            error = remote_call(tracee, ARCH_MMAP, arguments, arch_stack_pointer(&tracee->found), &address);
        if (error || (address < 0 && address > -4096))
            return error ? error : (int)address;
        tracee->mapped = (uint64_t)address;
        tracee->mapped_size = length;
        top = tracee->mapped + length;
    }
    tracee->pad = (top - size) & ~(uint64_t)63;
    return tracee->mapped ? 0 : read_memory(tracee, tracee->pad, tracee->saved, size);
}

/* The registers of a call to close that falls into the frame that restores. */
static void set_close(struct sockalive_tracee *tracee, struct arch_registers *registers, int fd)
{
    const uint64_t arguments[6] = {(uint64_t)fd};
    *registers = tracee->found;
    arch_set_call(registers, &tracee->target.code, ARCH_CLOSE, arguments,
                  pad_address(tracee, offsetof(struct pad, restore)), 0);
}

/* Writes the parachute and hangs the thread on it. Until the registers are written it runs on as found. */
static int spread_parachute(struct sockalive_tracee *tracee, bool *crash_safe)
{
    const struct target *target = &tracee->target;
    const struct arch_code *code = &target->code;
    struct arch_registers again = tracee->found, registers;
    struct arch_floating floating = {0};
    uint8_t instruction[2] = {0};
    uint64_t site = arch_call_site(&tracee->found);
    if (site)
        read_memory(tracee, site, instruction, sizeof instruction);
    arch_take_up_again(instruction, &tracee->found, &again);

    int no_floating = arch_read_floating(target->tid, code->kind, tracee->ours.floating, &floating);
    tracee->pad_size = offsetof(struct pad, floating) + floating.end;
    int error = place_pad(tracee);
    if (error)
        return error;
    uint64_t state = pad_address(tracee, offsetof(struct pad, floating) + floating.start);
    arch_make_frame(tracee->ours.restore, code, &again, tracee->mask, state);
    set_close(tracee, &registers, target_is_single(target) ? -1 : target->spare);
    arch_make_frame(tracee->ours.close, code, &registers, UINT64_MAX, state);
    error = write_memory(tracee, tracee->pad, &tracee->ours, tracee->pad_size);
    if (error)
        return error;
    *crash_safe = !no_floating && !tracee->mapped && code->returns && (code->sigreturn || code->load) &&
                  !target->shadow_stack && !target->seccomp;
    set_close(tracee, &registers, -1);
    error = arch_write(target->tid, &registers);
    /* A blocked signal stays pending, in its queue and its order, until release. */
    return error ? error : set_mask(tracee, UINT64_MAX);
}

/*
 * Which number to call on. Alone, a held thread keeps its descriptors. Among others it does not: they
 * may close the number, or open another file under it, between the look and the call. So there the
 * socket gets a second number, which nobody knows, and that one is looked at. It was chosen before,
 * so that the parachute can close it from the moment on when it is open.
 */
static int take_descriptor(struct sockalive_tracee *tracee)
{
    const struct target *target = &tracee->target;
    tracee->descriptor = target->fd;
    if (!target_is_single(target)) {
        const uint64_t arguments[6] = {(uint64_t)target->fd, F_DUPFD_CLOEXEC, (uint64_t)target->spare};
        int64_t duplicate;
        int error = call_safely(tracee, ARCH_FCNTL, arguments, &duplicate);
        if (error || duplicate < 0)
            return error ? error : duplicate == -EBADF ? -ESTALE : (int)duplicate;
        tracee->descriptor = (int)duplicate;
    }
    return target_is_socket(target, target->tid, tracee->descriptor) ? 0 : -ESTALE;
}

/* While it is held: is everything as it was found to be before? Then all that comes before the first call. */
static int prepare(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    const struct target *target = &tracee->target;
    info->stage = SOCKALIVE_STAGE_SECCOMP;
    if (target->seccomp && request(tracee, PTRACE_SETOPTIONS, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP) < 0)
        return -EPERM;
    info->stage = SOCKALIVE_STAGE_PREPARE;
    int error = arch_read(target->tid, target->code.kind, &tracee->found);
    if (error == -EOPNOTSUPP)
        info->stage = SOCKALIVE_STAGE_UNSUPPORTED;
    if (error == 0)
        error = request(tracee, PTRACE_GETSIGMASK, sizeof tracee->mask, (uintptr_t)&tracee->mask);
    return error;
}

/* Back to what was found. Whatever fails here, the parachute or the kernel's own restart remains. */
static void put_back(struct sockalive_tracee *tracee)
{
    int64_t ignored;
    if (tracee->descriptor != tracee->target.fd)
        call_safely(tracee, ARCH_CLOSE, (const uint64_t[6]){(uint64_t)tracee->descriptor}, &ignored);
    if (tracee->mapped)
        remote_call(tracee, ARCH_MUNMAP, (const uint64_t[6]){tracee->mapped, tracee->mapped_size},
                    arch_stack_pointer(&tracee->found), &ignored);
    if (interrupt(tracee, true, false) < 0)
        return;
    set_mask(tracee, tracee->mask);
    if (arch_write(tracee->target.tid, &tracee->found) == 0 && !tracee->mapped && tracee->pad)
        write_memory(tracee, tracee->pad, tracee->saved, tracee->pad_size);
}

int sockalive_hold(pid_t pid, int fd, uint64_t inode, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info)
{
    *info = (struct sockalive_hold){.stage = SOCKALIVE_STAGE_PREPARE};
    struct sockalive_tracee *tracee = calloc(1, sizeof *tracee);
    if (!tracee)
        return -ENOMEM;
    tracee->target = (struct target){.pid = pid, .fd = fd, .inode = inode};
    tracee->descriptor = fd;
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
    error = interrupt(tracee, false, true);
    if (error)
        goto out_detach;
    error = prepare(tracee, info);
    if (error)
        goto out_detach;
    error = spread_parachute(tracee, &info->crash_safe);
    if (error)
        goto out_put_back;
    info->stage = SOCKALIVE_STAGE_DESCRIPTOR;
    error = take_descriptor(tracee);
    if (error)
        goto out_put_back;
    info->stage = SOCKALIVE_STAGE_NONE;
    *out = tracee;
    return 0;

out_put_back:
    put_back(tracee);
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
    put_back(tracee);
    request(tracee, PTRACE_DETACH, 0, 0);
    info->paused_ns = now_ns() - tracee->running_until;
    free(tracee);
}

static int remote_option(struct sockalive_tracee *tracee, enum arch_call call, int level, int name,
                         struct slot *slot, struct sockalive_hold *info)
{
    const uint64_t address = pad_address(tracee, offsetof(struct pad, slot));
    const uint64_t arguments[6] = {
        (uint64_t)tracee->descriptor, (uint64_t)level, (uint64_t)name, address + offsetof(struct slot, value),
        call == ARCH_GETSOCKOPT ? address + offsetof(struct slot, length) : slot->length,
    };
    int64_t result = 0;
    for (int i = 0; i < 5; i++)
        slot->arguments[i] = (uint32_t)arguments[i];
    info->stage = SOCKALIVE_STAGE_CALL;
    int error = write_memory(tracee, address, slot, sizeof *slot);
    if (error == 0)
        error = call_safely(tracee, call, arguments, &result);
    if (error == 0 && call == ARCH_GETSOCKOPT)
        error = read_memory(tracee, address, slot, sizeof *slot);
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
    struct slot slot = {.length = *length};
    int result = remote_option(tracee, ARCH_GETSOCKOPT, level, name, &slot, info);
    if (result == 0 && slot.length <= *length) {
        memcpy(value, slot.value, slot.length);
        *length = slot.length;
    }
    return result;
}

int sockalive_remote_setsockopt(struct sockalive_tracee *tracee, int level, int name, const void *value,
                                uint32_t length, struct sockalive_hold *info)
{
    if (length > SOCKALIVE_OPTION_MAX)
        return -EINVAL;
    struct slot slot = {.length = length};
    memcpy(slot.value, value, length);
    return remote_option(tracee, ARCH_SETSOCKOPT, level, name, &slot, info);
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
    return error ? -error : -pthread_join(thread, NULL);
}
#endif
