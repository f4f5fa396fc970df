/*
 * A system call inside another process, without a trace left behind.
 *
 *   hold      choose a thread; SEIZE, INTERRUPT; spread the parachute (parachute.c); take the descriptor
 *   remote_*  run the target's own system call instruction, its stack pointer at the parachute
 *   release   back to the kind of stop that hold made; put everything back; DETACH
 *
 * Release ends where hold began, inside the kernel's signal handling (get_signal), with the registers
 * as they were found there, an interrupted call's -ERESTART code included. So the kernel itself takes
 * that call up again, or delivers a signal that came meanwhile and answers EINTR where that is due.
 * Nobody else can decide it without a race.
 */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Do the bytes that were found still stand there? */
static bool stands(const struct sockalive_tracee *tracee, const struct sockalive_code *code)
{
    uint8_t bytes[sizeof code->bytes];
    return code->length <= sizeof bytes && tracee_read(tracee, code->address, bytes, code->length) == 0 &&
           memcmp(bytes, code->bytes, code->length) == 0;
}

/* What must be known of the stopped thread before anything is changed. */
static int look(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    const struct sockalive_target *target = &tracee->target;
    const uintptr_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;
    info->stage = SOCKALIVE_STAGE_SECCOMP;
    if (target->seccomp && tracee_request(tracee, PTRACE_SETOPTIONS, 0, options) < 0)
        return -EPERM;
    info->stage = SOCKALIVE_STAGE_PREPARE;
    int error = arch_read(target->tid, target->is_32_bit, &tracee->found);
    if (error == -EOPNOTSUPP)
        info->stage = SOCKALIVE_STAGE_UNSUPPORTED;
    if (error)
        return error;
    if (!target->call.length || !stands(tracee, &target->call) || !stands(tracee, &target->sigreturn))
        return -ENOEXEC;
    return tracee_request(tracee, PTRACE_GETSIGMASK, sizeof tracee->mask, (uintptr_t)&tracee->mask);
}

/* Is the descriptor of the thread to hold the socket? */
static bool is_socket(const struct sockalive_target *target, int fd)
{
    char path[80], link[64], wanted[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/fd/%d", target->pid, target->tid, fd);
    snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)target->inode);
    ssize_t length = readlink(path, link, sizeof link - 1);
    if (length < 0)
        return false;
    link[length] = '\0';
    return strcmp(link, wanted) == 0;
}

/* Has the process one thread only, so that nobody touches its descriptors while that one is held? */
static bool is_single(const struct sockalive_target *target)
{
    char path[32];
    struct stat tasks;
    snprintf(path, sizeof path, "/proc/%d/task", target->pid);
    /* Its links are ".", "..", and one a thread (proc_task_getattr). */
    return stat(path, &tasks) == 0 && tasks.st_nlink == 3;
}

/*
 * Which number to call on. Alone, a held thread keeps its descriptors. Among others it does not: they
 * may close the number, or open another file under it, between the look and the call. So there the
 * socket gets a second number, which nobody knows, and that one is looked at. It was chosen before,
 * so that the parachute can close it from the moment on when it is open.
 */
static int take_descriptor(struct sockalive_tracee *tracee)
{
    const struct sockalive_target *target = &tracee->target;
    const uint64_t arguments[6] = {(uint64_t)target->fd, F_DUPFD_CLOEXEC, (uint64_t)target->spare};
    int64_t duplicate = target->fd;
    int error = 0;
    if (!is_single(target)) {
        error = parachute_holds(tracee, target->spare);
        if (error == 0)
            error = parachute_call(tracee, ARCH_FCNTL, arguments, &duplicate);
        if (error || duplicate < 0)
            return error ? error : duplicate == -EBADF ? -ESTALE : (int)duplicate;
        if (duplicate != target->spare)
            error = parachute_holds(tracee, (int)duplicate);
    }
    tracee->descriptor = (int)duplicate;
    return error ? error : is_socket(target, tracee->descriptor) ? 0 : -ESTALE;
}

/* Back to what was found, and let go. A thread that never stopped is let go when the one that seized it ends. */
static void let_go(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    int64_t ignored;
    if (tracee->descriptor != tracee->target.fd)
        parachute_call(tracee, ARCH_CLOSE, (const uint64_t[6]){(uint64_t)tracee->descriptor}, &ignored);
    if (tracee->pad_size)
        parachute_fold(tracee);
    tracee_request(tracee, PTRACE_DETACH, 0, 0);
    info->paused_ns = tracee->was_stopped ? tracee_now() - tracee->running_until : 0;
}

int sockalive_hold(const struct sockalive_target *target, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info)
{
    *info = (struct sockalive_hold){.stage = SOCKALIVE_STAGE_PREPARE};
    struct sockalive_tracee *tracee = calloc(1, sizeof *tracee);
    if (!tracee)
        return -ENOMEM;
    tracee->target = *target;
    tracee->descriptor = target->fd;
    tracee->timeout_ms = timeout_ms;
    arch_measure_floating();

    /* Killed from here on, before the parachute: the kernel detaches, and the thread runs on as it was. */
    info->stage = SOCKALIVE_STAGE_SEIZE;
    int error = tracee_request(tracee, PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD);
    if (error == -EPERM && !is_socket(target, target->fd))
        error = -ESRCH; /* what has just died is refused like this, too */
    if (error)
        goto out;
    info->stage = SOCKALIVE_STAGE_STOP;
    error = tracee_interrupt(tracee, false);
    if (error == 0)
        error = look(tracee, info);
    if (error == 0)
        error = parachute_spread(tracee, &info->crash_safe);
    if (error == 0) {
        info->stage = SOCKALIVE_STAGE_DESCRIPTOR;
        error = take_descriptor(tracee);
    }
    if (error == 0) {
        info->stage = SOCKALIVE_STAGE_NONE;
        *out = tracee;
        return 0;
    }
    let_go(tracee, info);
out:
    if (error == -ESRCH)
        info->stage = SOCKALIVE_STAGE_GONE;
    free(tracee);
    return error;
}

void sockalive_release(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    let_go(tracee, info);
    free(tracee);
}

static int finish(int error, struct sockalive_hold *info)
{
    info->stage = error == -ESRCH ? SOCKALIVE_STAGE_GONE : error ? SOCKALIVE_STAGE_CALL : SOCKALIVE_STAGE_NONE;
    return error == 0 || error == -ESRCH ? error : -EIO;
}

static int remote_option(struct sockalive_tracee *tracee, enum arch_call call, int level, int name,
                         struct slot *slot, struct sockalive_hold *info)
{
    const uint64_t arguments[6] = {
        (uint64_t)tracee->descriptor, (uint64_t)level, (uint64_t)name, PAD(tracee, slot.value),
        call == ARCH_GETSOCKOPT ? PAD(tracee, slot.length) : slot->length,
    };
    int64_t result = 0;
    for (int i = 0; i < 5; i++)
        slot->arguments[i] = (uint32_t)arguments[i];
    int error = tracee_write(tracee, PAD(tracee, slot), slot, sizeof *slot);
    if (error == 0)
        error = parachute_call(tracee, call, arguments, &result);
    if (error == 0 && call == ARCH_GETSOCKOPT)
        error = tracee_read(tracee, PAD(tracee, slot), slot, sizeof *slot);
    error = finish(error, info);
    return error ? error : (int)result;
}

int sockalive_remote_option(struct sockalive_tracee *tracee, bool set, int level, int name, void *value,
                            uint32_t *length, struct sockalive_hold *info)
{
    if (*length > SOCKALIVE_OPTION_MAX)
        return -EINVAL;
    struct slot slot = {.length = *length};
    memcpy(slot.value, value, *length);
    int result = remote_option(tracee, set ? ARCH_SETSOCKOPT : ARCH_GETSOCKOPT, level, name, &slot, info);
    if (result == 0 && !set && slot.length <= *length) {
        memcpy(value, slot.value, slot.length);
        *length = slot.length;
    }
    return result;
}

/* Adds the calls for one option: setsockopt if it is to be set, and then getsockopt. Answers their number. */
static size_t add_calls(struct sockalive_tracee *tracee, const struct sockalive_option *option, size_t index,
                        struct chain_call *calls)
{
    struct step_slot *slot = &tracee->ours.steps[index];
    size_t count = 0;
    *slot = (struct step_slot){.given = option->value, .length = sizeof slot->value};
    for (int read = option->set ? 0 : 1; read < 2; read++) {
        struct chain_call *call = &calls[count++];
        *call = (struct chain_call){
            .call = read ? ARCH_GETSOCKOPT : ARCH_SETSOCKOPT,
            .arguments = {(uint64_t)tracee->descriptor, (uint64_t)option->level, (uint64_t)option->name,
                          read ? PAD(tracee, steps[index].value) : PAD(tracee, steps[index].given),
                          read ? PAD(tracee, steps[index].length) : sizeof slot->given},
            .array = PAD(tracee, steps[index].arguments[read]),
        };
        for (int i = 0; i < 5; i++)
            slot->arguments[read][i] = (uint32_t)call->arguments[i];
    }
    return count;
}

int sockalive_remote_options(struct sockalive_tracee *tracee, struct sockalive_option *options, size_t count,
                             struct sockalive_hold *info)
{
    struct chain_call calls[STEPS_MAX];
    size_t number = 0;
    if (count == 0 || count > SOCKALIVE_OPTIONS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        number += add_calls(tracee, &options[i], i, calls + number);
    int chained = parachute_chain(tracee, calls, number);
    for (size_t i = 0; i < count; i++) {
        const struct step_slot *slot = &tracee->ours.steps[i];
        options[i].done = chained == 0 && slot->length == sizeof options[i].value &&
                          (!options[i].set || slot->value[0] == slot->given);
        if (options[i].done)
            options[i].value = slot->value[0];
    }
    return chained == -EAGAIN ? 0 : finish(chained, info);
}
#endif
