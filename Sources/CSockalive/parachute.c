/*
 * What the target holds while it is held (struct pad), so that it needs nobody to go on: should this
 * process be killed at any instant, the kernel lets the target run, the call returns, its `ret` lands
 * in rt_sigreturn, and the kernel itself loads what the thread had. That holds in system-call and
 * event stops, and in the stop of an ignored signal; not in the one that a single step would make: a
 * tracer's death there delivers the SIGTRAP.
 */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f /* Linux 5.13 */
#endif
#define EVERY_SIGNAL UINT64_MAX
#define THREAD_BLOCK_MAX 8192

/* Puts the pad at the first address from start on that is aligned, and notes what lies there. */
static bool place_at(struct sockalive_tracee *tracee, uint64_t start)
{
    uint64_t address = (start + 63) & ~(uint64_t)63;
    if (tracee_read(tracee, address, tracee->saved, tracee->pad_size) < 0)
        return false;
    tracee->pad = address;
    return true;
}

/* Below the thread's own stack pointer, if the memory there is certainly its own and large enough. */
static bool place_on_stack(struct sockalive_tracee *tracee)
{
    const struct sockalive_target *target = &tracee->target;
    uint64_t top = arch_free_stack(target->is_32_bit, &tracee->found);
    uint64_t thread = arch_thread_pointer(target->is_32_bit, &tracee->found);
    for (size_t i = 0; i < target->stack_count; i++) {
        const struct sockalive_stack *stack = &target->stacks[i];
        if (top <= stack->start || top > stack->end)
            continue;
        /* glibc and musl put the thread's own block at the very end of the stack that they allocate. */
        bool own = stack->main || (thread >= top && stack->end - thread <= THREAD_BLOCK_MAX);
        return own && top - stack->start >= tracee->pad_size + 64 &&
               place_at(tracee, (top - tracee->pad_size) & ~(uint64_t)63);
    }
    return false;
}

/*
 * In the lowest part of the main thread's stack, where that is the thread held, stands elsewhere (on a
 * coroutine's stack), and never got so deep: the kernel gives every program 128 KB to begin with.
 */
static bool place_at_bottom(struct sockalive_tracee *tracee)
{
    const struct sockalive_target *target = &tracee->target;
    const struct sockalive_stack *stack = NULL;
    uint64_t pointer = arch_stack_pointer(&tracee->found);
    for (size_t i = 0; i < target->stack_count && !stack; i++)
        stack = target->stacks[i].main ? &target->stacks[i] : NULL;
    if (target->tid != target->pid || !stack || (pointer >= stack->start && pointer <= stack->end) ||
        stack->end - stack->start < 2 * tracee->pad_size || !place_at(tracee, stack->start))
        return false;
    for (size_t i = 0; i < tracee->pad_size; i++) {
        if (tracee->saved[i] != 0)
            tracee->pad = 0;
    }
    return tracee->pad != 0;
}

/*
 * In a mapping made by a call that needs no memory. Killed during that call, or during the one that
 * takes the mapping away, the target is lost: this does not count as crash-safe.
 */
static int place_in_mapping(struct sockalive_tracee *tracee)
{
    uint64_t length = (tracee->pad_size + 4095) & ~(uint64_t)4095;
    const uint64_t arguments[6] = {0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
    int64_t address;
    int error = tracee_set_mask(tracee, EVERY_SIGNAL);
    if (error == 0)
        error = tracee_call(tracee, ARCH_MMAP, arguments, arch_stack_pointer(&tracee->found), 0, &address);
    if (error || (address < 0 && address > -4096))
        return error ? error : (int)address;
    tracee->pad = tracee->mapped = (uint64_t)address;
    tracee->mapped_size = length;
    return 0;
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
    if (tracee_request(tracee, PTRACE_GET_RSEQ_CONFIGURATION, sizeof where, (uintptr_t)&where) < 0 || !where.area)
        return;
    if (tracee_read(tracee, where.area + 8, &address, sizeof address) == 0 && address &&
        tracee_read(tracee, address, &sequence, sizeof sequence) == 0)
        arch_abort_sequence(&tracee->found, sequence.start, sequence.size, sequence.abort);
}

static uint64_t floating_address(const struct sockalive_tracee *tracee)
{
    return PAD(tracee, floating) + tracee->floating.start;
}

/* The registers of a call of close that returns into the frame that restores. */
static struct arch_registers closing(const struct sockalive_tracee *tracee, int descriptor)
{
    struct arch_registers registers = tracee->found;
    arch_set_call(&registers, &tracee->target, ARCH_CLOSE, (const uint64_t[6]){(uint64_t)descriptor},
                  PAD(tracee, restore), 0);
    return registers;
}

int parachute_holds(struct sockalive_tracee *tracee, int descriptor)
{
    struct arch_registers registers = closing(tracee, descriptor);
    arch_make_frame(tracee->ours.close, &tracee->target, &registers, EVERY_SIGNAL, floating_address(tracee));
    return tracee_write(tracee, PAD(tracee, close), tracee->ours.close, sizeof tracee->ours.close);
}

int parachute_spread(struct sockalive_tracee *tracee, bool *crash_safe)
{
    const struct sockalive_target *target = &tracee->target;
    uint8_t instruction[2] = {0};
    uint64_t site = arch_call_site(&tracee->found);
    if (site)
        tracee_read(tracee, site, instruction, sizeof instruction);
    else
        abort_sequence(tracee); /* system calls are not allowed in one */
    struct arch_registers again = tracee->found, resting;
    arch_take_up_again(instruction, &tracee->found, &again);

    bool returns = target->returns && target->sigreturn.length && !target->shadow_stack &&
                   arch_read_floating(target->tid, target->is_32_bit, tracee->ours.floating, &tracee->floating) == 0;
    tracee->pad_size = offsetof(struct pad, floating) + tracee->floating.end;
    int error = place_on_stack(tracee) || place_at_bottom(tracee) ? 0 : place_in_mapping(tracee);
    if (error)
        return error;
    tracee->may_chain = returns && target->own_tid && !arch_sleeps_by_block(&tracee->found);
    *crash_safe = returns && !tracee->mapped && !target->seccomp;
    arch_make_frame(tracee->ours.restore, target, &again, tracee->mask, floating_address(tracee));
    error = tracee_write(tracee, tracee->pad, &tracee->ours, tracee->pad_size);
    if (error == 0)
        error = parachute_holds(tracee, -1);
    if (error)
        return error;
    /* Killed before this, the thread runs on as it was; after it, along the frames. */
    resting = closing(tracee, -1);
    error = arch_write(target->tid, &resting);
    /* A blocked signal stays pending, in its queue and its order, until the mask is put back. */
    return error ? error : tracee_set_mask(tracee, EVERY_SIGNAL);
}

int parachute_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6], int64_t *result)
{
    return tracee_call(tracee, call, arguments, PAD(tracee, close), PAD(tracee, slot.arguments), result);
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

int parachute_chain(struct sockalive_tracee *tracee, const struct chain_call *calls, size_t count)
{
    const struct sockalive_target *target = &tracee->target;
    int signal = harmless_signal(tracee);
    if (!tracee->may_chain || !signal || count > STEPS_MAX)
        return -EAGAIN;
    struct arch_registers first = tracee->found, next;
    for (size_t i = 0; i < count; i++) {
        next = tracee->found;
        arch_set_call(&next, target, calls[i].call, calls[i].arguments, PAD(tracee, chain[i]), calls[i].array);
        if (i == 0)
            first = next;
        else
            arch_make_frame(tracee->ours.chain[i - 1], target, &next, EVERY_SIGNAL, floating_address(tracee));
    }
    const uint64_t stop[6] = {(uint64_t)target->own_tid, (uint64_t)signal};
    arch_set_call(&next, target, ARCH_TKILL, stop, PAD(tracee, close), 0);
    arch_make_frame(tracee->ours.chain[count - 1], target, &next, EVERY_SIGNAL & ~(1ull << (signal - 1)),
                    floating_address(tracee));

    size_t size = offsetof(struct pad, chain[count]) - offsetof(struct pad, steps);
    int error = tracee_write(tracee, PAD(tracee, steps), tracee->ours.steps, size);
    if (error == 0)
        error = arch_write(target->tid, &first);
    tracee->chained = true;
    if (error == 0)
        error = tracee_request(tracee, PTRACE_CONT, 0, 0);
    if (error == 0)
        error = tracee_run_to(tracee, PTRACE_CONT, signal);
    if (error == -ETIMEDOUT)
        tracee_interrupt(tracee, false);
    return error ? error : tracee_read(tracee, PAD(tracee, steps), tracee->ours.steps, sizeof tracee->ours.steps);
}

void parachute_fold(struct sockalive_tracee *tracee)
{
    int64_t ignored;
    if (tracee->mapped)
        tracee_call(tracee, ARCH_MUNMAP, (const uint64_t[6]){tracee->mapped, tracee->mapped_size},
                    arch_stack_pointer(&tracee->found), 0, &ignored);
    if (!tracee->in_signal_handling && tracee_interrupt(tracee, true) < 0)
        return;
    if (tracee->chained) /* rt_sigreturn has loaded it already; the kernel's own way is the surer one */
        arch_write_floating(tracee->target.tid, tracee->ours.floating, &tracee->floating);
    tracee_set_mask(tracee, tracee->mask);
    /* Until here the parachute serves; from here on the kernel itself takes the interrupted call up again. */
    if (arch_write(tracee->target.tid, &tracee->found) == 0 && tracee->pad && !tracee->mapped)
        tracee_write(tracee, tracee->pad, tracee->saved, tracee->pad_size);
}
#endif
