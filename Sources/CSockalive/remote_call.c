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
#define EVENT_STOP (PTRACE_EVENT_STOP << 8)
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f /* Linux 5.13 */
#endif
#define SPIN_NS 200000

/* What one call reads and writes. */
struct slot {
    uint32_t arguments[5]; /* for calls that want them in memory */
    uint32_t length;
    uint8_t value[SOCKALIVE_OPTION_MAX];
};

/* The same for one of several options: for a setsockopt, and the getsockopt behind it. */
struct step_slot {
    uint32_t arguments[2][5];
    int32_t given;
    uint32_t length;
    int32_t value[2]; /* one more than an integer needs: a length of 4 shows that the reading succeeded */
};

#define STEPS_MAX (2 * SOCKALIVE_OPTIONS_MAX)

/*
 * What the target holds below its stack pointer meanwhile; the stack grows downwards, so this is
 * read from the bottom. A call's `ret` falls into `close`, that one's into `restore`.
 */
struct pad {
    struct slot slot;
    struct step_slot steps[SOCKALIVE_OPTIONS_MAX];
    uint8_t chain[STEPS_MAX][ARCH_FRAME_SIZE]; /* each makes the next of several calls */
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
    bool may_chain;          /* rt_sigreturn works in this target, and takes nothing from it */
    bool chained;            /* it has run */
    bool in_signal_handling; /* the present stop is one of get_signal's */
    struct arch_floating floating;
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

/*
 * Runs the thread, by PTRACE_CONT or PTRACE_SYSCALL, to the stop wanted: EVENT_STOP, SYSCALL_STOP or
 * a signal. Any other is handed back: a signal is delivered, a group stop stays in effect (detaching
 * the thread puts it back into that).
 */
static int run_to(struct sockalive_tracee *tracee, int how, int wanted, bool first)
{
    for (;;) {
        int status = await_stop(tracee, first);
        if (status < 0)
            return status;
        if (status >> 8 == PTRACE_EVENT_STOP)
            status = EVENT_STOP;
        /* An event stop and a signal's are made by get_signal: release may end there. */
        tracee->in_signal_handling = status != SYSCALL_STOP;
        if (status == wanted)
            return 0;
        int signal = status == SYSCALL_STOP || status == EVENT_STOP ? 0 : status;
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
    return error ? error : run_to(tracee, PTRACE_CONT, EVENT_STOP, first);
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

/* One system call in the target, from instruction to result. */
static int run_call(struct sockalive_tracee *tracee, const struct arch_registers *registers, int64_t *result)
{
    int error = arch_write(tracee->target.tid, registers);
    for (int stop = 0; stop < 2 && error == 0; stop++) { /* entry, then exit */
        error = request(tracee, PTRACE_SYSCALL, 0, 0);
        if (error == 0)
            error = run_to(tracee, PTRACE_SYSCALL, SYSCALL_STOP, false);
    }
    if (error == -ETIMEDOUT) /* frozen, perhaps: back to a stop from which it can be let go */
        interrupt(tracee, false, false);
    return error ? error : arch_result(tracee->target.tid, tracee->target.code.kind, result);
}

/* As run_call, with the stack pointer at stack; at array the first five arguments where they are wanted in memory. */
static int remote_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6],
                       uint64_t stack, uint64_t array, int64_t *result)
{
    struct arch_registers registers = tracee->found;
    arch_set_call(&registers, &tracee->target.code, call, arguments, stack, array);
    return run_call(tracee, &registers, result);
}

static uint64_t pad_address(const struct sockalive_tracee *tracee, size_t offset)
{
    return tracee->pad + offset;
}

/* As remote_call, over the parachute: the call's own answer, or why it did not come to its end. */
static int call_safely(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6],
                       int64_t *result)
{
    return remote_call(tracee, call, arguments, pad_address(tracee, offsetof(struct pad, close)),
                       pad_address(tracee, offsetof(struct pad, slot.arguments)), result);
}

/* The lowest part of the main thread's stack, where that is the thread held, stands elsewhere, and never got so deep. */
static bool place_at_bottom(struct sockalive_tracee *tracee)
{
    const struct target *target = &tracee->target;
    const struct span *stack = target_main_stack(target);
    uint64_t pointer = arch_stack_pointer(&tracee->found);
    if (target->tid != target->pid || !stack || (pointer >= stack->start && pointer <= stack->end) ||
        stack->end - stack->start < 2 * tracee->pad_size)
        return false;
    tracee->pad = (stack->start + 63) & ~(uint64_t)63;
    if (read_memory(tracee, tracee->pad, tracee->saved, tracee->pad_size) != 0)
        return false;
    for (size_t i = 0; i < tracee->pad_size; i++) {
        if (tracee->saved[i] != 0)
            return false;
    }
    return true;
}

/*
 * A mapping made by a call that needs no memory. Killed during that call, or during the one that
 * takes the mapping away, the target is lost: this does not count as crash-safe.
 */
static int place_in_mapping(struct sockalive_tracee *tracee)
{
    uint64_t length = (tracee->pad_size + 64 + 4095) & ~(uint64_t)4095;
    const uint64_t arguments[6] = {0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
    int64_t address;
    int error = set_mask(tracee, UINT64_MAX);
    if (error == 0)
        error = remote_call(tracee, ARCH_MMAP, arguments, arch_stack_pointer(&tracee->found), 0, &address);
    if (error || (address < 0 && address > -4096))
        return error ? error : (int)address;
    tracee->pad = tracee->mapped = (uint64_t)address;
    tracee->mapped_size = length;
    return 0;
}

/* Below the thread's own stack pointer, if the memory there is certainly its own and large enough. */
static int place_pad(struct sockalive_tracee *tracee)
{
    enum arch_kind kind = tracee->target.code.kind;
    uint64_t top = arch_free_stack(kind, &tracee->found);
    if (target_has_stack(&tracee->target, top, arch_thread_pointer(kind, &tracee->found), tracee->pad_size + 64)) {
        tracee->pad = (top - tracee->pad_size) & ~(uint64_t)63;
        return read_memory(tracee, tracee->pad, tracee->saved, tracee->pad_size);
    }
    return place_at_bottom(tracee) ? 0 : place_in_mapping(tracee);
}

/* The registers of a call to close that falls into the frame that restores. */
static void set_close(struct sockalive_tracee *tracee, struct arch_registers *registers, int fd)
{
    const uint64_t arguments[6] = {(uint64_t)fd};
    *registers = tracee->found;
    arch_set_call(registers, &tracee->target.code, ARCH_CLOSE, arguments,
                  pad_address(tracee, offsetof(struct pad, restore)), 0);
}

/*
 * A thread interrupted in a restartable sequence (rseq(2)) goes on at the sequence's abort address. The
 * kernel sees to that on the way back to the thread's code; on the way to ours it would see that the
 * sequence is left, and forget it (rseq_ip_fixup).
 */
static void abort_sequence(struct sockalive_tracee *tracee)
{
    struct { uint64_t area; uint32_t size, signature, flags, unused; } where;
    struct { uint32_t version, flags; uint64_t start, size, abort; } sequence;
    uint64_t address = 0;
    if (request(tracee, PTRACE_GET_RSEQ_CONFIGURATION, sizeof where, (uintptr_t)&where) < 0 || !where.area)
        return;
    if (read_memory(tracee, where.area + 8, &address, sizeof address) == 0 && address &&
        read_memory(tracee, address, &sequence, sizeof sequence) == 0)
        arch_abort_sequence(&tracee->found, sequence.start, sequence.size, sequence.abort);
}

/* Writes the parachute and hangs the thread on it. Until the registers are written it runs on as found. */
static int spread_parachute(struct sockalive_tracee *tracee, bool *crash_safe)
{
    const struct target *target = &tracee->target;
    const struct arch_code *code = &target->code;
    uint8_t instruction[2] = {0};
    uint64_t site = arch_call_site(&tracee->found);
    if (site)
        read_memory(tracee, site, instruction, sizeof instruction);
    else
        abort_sequence(tracee); /* system calls are not allowed in one */
    struct arch_registers again = tracee->found, registers;
    arch_take_up_again(instruction, &tracee->found, &again);

    int no_floating = arch_read_floating(target->tid, code->kind, tracee->ours.floating, &tracee->floating);
    tracee->pad_size = offsetof(struct pad, floating) + tracee->floating.end;
    int error = place_pad(tracee);
    if (error)
        return error;
    uint64_t state = pad_address(tracee, offsetof(struct pad, floating) + tracee->floating.start);
    arch_make_frame(tracee->ours.restore, code, &again, tracee->mask, state);
    set_close(tracee, &registers, target_is_single(target) ? -1 : target->spare);
    arch_make_frame(tracee->ours.close, code, &registers, UINT64_MAX, state);
    error = write_memory(tracee, tracee->pad, &tracee->ours, tracee->pad_size);
    if (error)
        return error;
    bool returns = !no_floating && code->returns && (code->sigreturn || code->load) && !target->shadow_stack;
    tracee->may_chain = returns && !arch_sleeps_by_block(&tracee->found);
    *crash_safe = returns && !tracee->mapped && !target->seccomp;
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
                    arch_stack_pointer(&tracee->found), 0, &ignored);
    if (!tracee->in_signal_handling && interrupt(tracee, true, false) < 0)
        return;
    if (tracee->chained) /* rt_sigreturn has loaded this already; the kernel's own way is the surer one */
        arch_write_floating(tracee->target.tid, tracee->ours.floating, &tracee->floating);
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
    arch_measure_floating(&tracee->floating);
    int error = target_inspect(&tracee->target, &info->stage);
    info->tid = tracee->target.tid;
    if (error)
        goto out_free;

    info->stage = SOCKALIVE_STAGE_SEIZE;
    error = request(tracee, PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD);
    if (error == -EPERM && !target_is_socket(&tracee->target, info->tid, fd))
        error = -ESRCH; /* what has just died is refused like this, too */
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
out_free:
    if (error == -ESRCH && info->stage != SOCKALIVE_STAGE_CHOOSE_THREAD)
        info->stage = SOCKALIVE_STAGE_GONE;
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

/*
 * A signal that the target neither blocks nor handles and whose default is to be ignored: it stops a
 * traced thread (sig_ignored), and does nothing to one whose tracer is gone. 0: there is none.
 */
static int harmless_signal(const struct sockalive_tracee *tracee)
{
    static const int signals[] = {SIGURG, SIGWINCH, SIGCHLD};
    uint64_t taken = tracee->target.handled | tracee->mask;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (!(taken >> (signals[i] - 1) & 1))
            return signals[i];
    }
    return 0;
}

static uint64_t step_address(const struct sockalive_tracee *tracee, size_t option)
{
    return pad_address(tracee, offsetof(struct pad, steps) + option * sizeof(struct step_slot));
}

/* Notes in the pad what the calls for the options need, and in steps their registers; answers their number. */
static size_t make_steps(struct sockalive_tracee *tracee, const struct sockalive_option *options, size_t count,
                         struct arch_registers steps[STEPS_MAX])
{
    size_t number = 0;
    for (size_t i = 0; i < count; i++) {
        struct step_slot *slot = &tracee->ours.steps[i];
        *slot = (struct step_slot){.given = options[i].value, .length = sizeof slot->value};
        for (int read = options[i].set ? 0 : 1; read < 2; read++) {
            const uint64_t here = step_address(tracee, i), arguments[6] = {
                (uint64_t)tracee->descriptor, (uint64_t)options[i].level, (uint64_t)options[i].name,
                here + (read ? offsetof(struct step_slot, value) : offsetof(struct step_slot, given)),
                read ? here + offsetof(struct step_slot, length) : sizeof slot->given,
            };
            for (int k = 0; k < 5; k++)
                slot->arguments[read][k] = (uint32_t)arguments[k];
            steps[number] = tracee->found;
            arch_set_call(&steps[number++], &tracee->target.code, read ? ARCH_GETSOCKOPT : ARCH_SETSOCKOPT, arguments,
                          pad_address(tracee, offsetof(struct pad, close)),
                          here + offsetof(struct step_slot, arguments[read]));
        }
    }
    return number;
}

/*
 * All the steps with one stop: the first from registers, each next from a frame into which the one
 * before returns; at the end the thread sends itself the signal at which it stops. Killed meanwhile,
 * the thread runs along the chain into the parachute.
 */
static int run_chain(struct sockalive_tracee *tracee, struct arch_registers *steps, size_t number, int signal)
{
    const uint64_t state = pad_address(tracee, offsetof(struct pad, floating) + tracee->floating.start);
    const struct arch_code *code = &tracee->target.code;
    struct pad *ours = &tracee->ours;
    struct arch_registers stop = tracee->found;
    const uint64_t arguments[6] = {(uint64_t)tracee->target.own_tid, (uint64_t)signal};
    for (size_t i = 0; i < number; i++) {
        arch_set_stack(&steps[i], pad_address(tracee, offsetof(struct pad, chain[i])));
        if (i > 0)
            arch_make_frame(ours->chain[i - 1], code, &steps[i], UINT64_MAX, state);
    }
    arch_set_call(&stop, code, ARCH_TKILL, arguments, pad_address(tracee, offsetof(struct pad, close)), 0);
    arch_make_frame(ours->chain[number - 1], code, &stop, ~(1ull << (signal - 1)), state);

    int error = write_memory(tracee, step_address(tracee, 0), ours->steps,
                             offsetof(struct pad, chain[number]) - offsetof(struct pad, steps));
    if (error == 0)
        error = arch_write(tracee->target.tid, &steps[0]);
    tracee->chained = true;
    if (error == 0)
        error = request(tracee, PTRACE_CONT, 0, 0);
    if (error == 0)
        error = run_to(tracee, PTRACE_CONT, signal, false);
    if (error == -ETIMEDOUT)
        interrupt(tracee, false, false);
    return error;
}

/* The same step by step: two stops each. Leaves each option's last answer in its slot's `given`. */
static int run_singly(struct sockalive_tracee *tracee, const struct arch_registers *steps, size_t number,
                      int64_t results[STEPS_MAX])
{
    int error = write_memory(tracee, step_address(tracee, 0), tracee->ours.steps, sizeof tracee->ours.steps);
    for (size_t i = 0; i < number && error == 0; i++)
        error = run_call(tracee, &steps[i], &results[i]);
    return error;
}

/* What the option came to. In a chain an answer has no place: what was not read, or read otherwise than set, is tried alone. */
static void conclude(struct sockalive_tracee *tracee, struct sockalive_option *option, const struct step_slot *slot,
                     bool chained, const int64_t **result, struct sockalive_hold *info)
{
    uint32_t length = sizeof option->value;
    bool was_read = slot->length == length;
    option->value = slot->value[0];
    if (!chained) {
        option->result = (int)(*result)[0];
        *result += option->set ? 2 : 1;
    } else if (was_read && (!option->set || slot->value[0] == slot->given)) {
        option->result = 0;
    } else if (option->set) {
        option->result = sockalive_remote_setsockopt(tracee, option->level, option->name, &slot->given, length, info);
    } else {
        option->result = sockalive_remote_getsockopt(tracee, option->level, option->name, &option->value, &length, info);
    }
}

int sockalive_remote_options(struct sockalive_tracee *tracee, struct sockalive_option *options, size_t count,
                             struct sockalive_hold *info)
{
    struct arch_registers steps[STEPS_MAX];
    int64_t results[STEPS_MAX] = {0};
    const int64_t *result = results;
    int signal = harmless_signal(tracee);
    bool chain = tracee->may_chain && tracee->target.own_tid && signal;
    if (count == 0 || count > SOCKALIVE_OPTIONS_MAX)
        return -EINVAL;
    size_t number = make_steps(tracee, options, count, steps);
    int error = chain ? run_chain(tracee, steps, number, signal) : run_singly(tracee, steps, number, results);
    if (error == 0)
        error = read_memory(tracee, step_address(tracee, 0), tracee->ours.steps, sizeof tracee->ours.steps);
    info->stage = error == -ESRCH ? SOCKALIVE_STAGE_GONE : error ? SOCKALIVE_STAGE_CALL : SOCKALIVE_STAGE_NONE;
    for (size_t i = 0; i < count && error == 0 && info->stage == SOCKALIVE_STAGE_NONE; i++)
        conclude(tracee, &options[i], &tracee->ours.steps[i], chain, &result, info);
    return error == 0 || error == -ESRCH ? error : -EIO;
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
