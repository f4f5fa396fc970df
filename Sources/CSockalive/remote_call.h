/*
 * Inside the remote call: who knows what.
 *
 *   remote_call.c   the sequence: hold, call, release
 *   parachute.c     what the target holds meanwhile, so that it needs nobody to go on
 *   tracee.c        one traced thread: stops, memory, a single call
 *   arch_x86_64.c   instruction bytes, register names, the shape of a signal frame
 */
#ifndef SOCKALIVE_REMOTE_CALL_H
#define SOCKALIVE_REMOTE_CALL_H

#include "CSockalive.h"

#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

/* ---- arch: one file an architecture ---------------------------------------- */

struct arch_registers {
    struct user_regs_struct user;
};

/* The floating-point and vector registers as rt_sigreturn takes them, in a copy that is 64-byte aligned. */
#define ARCH_FLOATING_MAX 16384
struct arch_floating {
    size_t start, end; /* of what a frame points to */
    size_t full;       /* of what ptrace gave, and takes back */
};

#define ARCH_FRAME_SIZE 320 /* a signal frame with what stands before it, rounded up */

enum arch_call { ARCH_GETSOCKOPT, ARCH_SETSOCKOPT, ARCH_FCNTL, ARCH_CLOSE, ARCH_MMAP, ARCH_MUNMAP, ARCH_TKILL };

/* Reads and writes the registers of a stopped thread: 0 or -errno; -EOPNOTSUPP: in a mode that cannot be served. */
int arch_read(pid_t tid, bool is_32_bit, struct arch_registers *registers);
int arch_write(pid_t tid, const struct arch_registers *registers);

/* Once, and while nobody is held: CPUID takes some 10 us where a hypervisor answers it, 61 times. */
void arch_measure_floating(void);

int arch_read_floating(pid_t tid, bool is_32_bit, uint8_t copy[ARCH_FLOATING_MAX], struct arch_floating *where);
int arch_write_floating(pid_t tid, uint8_t copy[ARCH_FLOATING_MAX], const struct arch_floating *where);

uint64_t arch_stack_pointer(const struct arch_registers *registers);
uint64_t arch_thread_pointer(bool is_32_bit, const struct arch_registers *registers); /* never 0 */

/* The highest address below the stack pointer at which the thread itself keeps nothing, aligned to 64. */
uint64_t arch_free_stack(bool is_32_bit, const struct arch_registers *registers);

/* Two bytes before this address tell by which instruction an interrupted call was made; 0: none was. */
uint64_t arch_call_site(const struct arch_registers *found);

/*
 * Turns the registers of a thread that was found stopped into those with which the kernel's signal
 * handling takes the interrupted call up again, and into those with which it is simply made again.
 */
void arch_take_up_again(const uint8_t instruction[2], struct arch_registers *by_kernel,
                        struct arch_registers *by_hand);

/* Where the thread goes on, if the kernel would have aborted a restartable sequence from start on, size bytes long. */
void arch_abort_sequence(struct arch_registers *found, uint64_t start, uint64_t size, uint64_t abort);

/* Does the interrupted call go on from the thread's restart block? rt_sigreturn would drop that. */
bool arch_sleeps_by_block(const struct arch_registers *by_kernel);

/*
 * Changes registers into those of one system call at the instruction itself. array is where the first
 * five arguments lie as 32-bit numbers, for the kind that wants them so.
 */
void arch_set_call(struct arch_registers *registers, const struct sockalive_target *target, enum arch_call call,
                   const uint64_t arguments[6], uint64_t stack, uint64_t array);

/* What the call in a system-call-exit stop returned: 0 or -errno of the ptrace request. */
int arch_result(pid_t tid, bool is_32_bit, int64_t *result);

/*
 * A signal frame from which rt_sigreturn loads registers, signal mask and floating state. A call whose
 * stack pointer is the frame's address falls into it when its `ret` is reached.
 */
void arch_make_frame(uint8_t frame[ARCH_FRAME_SIZE], const struct sockalive_target *target,
                     const struct arch_registers *registers, uint64_t mask, uint64_t floating);

/* ---- tracee.c: one traced thread --------------------------------------------- */

#define SYSCALL_STOP (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */
#define EVENT_STOP (PTRACE_EVENT_STOP << 8)

/* What one call reads and writes. */
struct slot {
    uint32_t arguments[5]; /* for calls that want them in memory */
    uint32_t length;
    uint8_t value[SOCKALIVE_OPTION_MAX];
};

/* What a setsockopt and the getsockopt behind it do, for one of several options. */
struct step_slot {
    uint32_t arguments[2][5];
    int32_t given;
    uint32_t length;
    int32_t value[2]; /* one more than an integer needs: a length of 4 shows that the reading succeeded */
};

#define STEPS_MAX (2 * SOCKALIVE_OPTIONS_MAX)

/*
 * What the target holds below its stack pointer. The stack grows downwards: read it from the bottom.
 * The `ret` of a call falls into `close`, the one of that into `restore`.
 */
struct pad {
    struct slot slot;
    struct step_slot steps[SOCKALIVE_OPTIONS_MAX];
    uint8_t chain[STEPS_MAX][ARCH_FRAME_SIZE]; /* each makes the next of several calls */
    uint8_t close[ARCH_FRAME_SIZE];            /* runs close(duplicate) */
    uint8_t restore[ARCH_FRAME_SIZE];          /* loads what was found */
    uint8_t floating[ARCH_FLOATING_MAX] __attribute__((aligned(64)));
};

struct sockalive_tracee {
    struct sockalive_target target;
    int timeout_ms;
    int64_t running_until; /* when it was last known to run */
    bool was_stopped;
    bool in_signal_handling;      /* the present stop is one of get_signal's */
    struct arch_registers found;  /* as release puts them back */
    uint64_t mask;                /* the thread's blocked signals */
    int descriptor;               /* fd, or a duplicate that no other thread knows */
    struct arch_floating floating;
    uint64_t pad;                 /* where struct pad lies in the target; 0: nowhere yet */
    size_t pad_size;
    uint64_t mapped, mapped_size; /* the mapping made for it; 0: it is on a stack */
    bool may_chain;               /* rt_sigreturn works in this target, and takes nothing from it */
    bool chained;                 /* it has run */
    struct pad ours;
    uint8_t saved[sizeof(struct pad)]; /* what lay in the pad's place */
};

int64_t tracee_now(void);
int tracee_request(const struct sockalive_tracee *tracee, int name, uintptr_t address, uintptr_t data);
int tracee_read(const struct sockalive_tracee *tracee, uint64_t address, void *bytes, size_t size);
int tracee_write(const struct sockalive_tracee *tracee, uint64_t address, const void *bytes, size_t size);
int tracee_set_mask(const struct sockalive_tracee *tracee, uint64_t mask);

/*
 * Runs the thread, by PTRACE_CONT or PTRACE_SYSCALL, to the stop wanted: EVENT_STOP, SYSCALL_STOP or
 * a signal. Any other is handed back: a signal is delivered, a group stop stays in effect (detaching
 * the thread puts it back into that).
 */
int tracee_run_to(struct sockalive_tracee *tracee, int how, int wanted);

/* From a stop, or from running, to an event stop. */
int tracee_interrupt(struct sockalive_tracee *tracee, bool stopped);

/*
 * One system call, with the stack pointer at stack, and at array its first five arguments for the
 * kind that wants them in memory: 0 and its result, or why it did not come to its end.
 */
int tracee_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6], uint64_t stack,
                uint64_t array, int64_t *result);

/* ---- parachute.c ---------------------------------------------------------------- */

/* Where a part of struct pad lies in the target. */
#define PAD(tracee, part) ((tracee)->pad + offsetof(struct pad, part))

/* Places and writes the pad, and hangs the stopped thread on it. Until its last step the thread would run on as found. */
int parachute_spread(struct sockalive_tracee *tracee, bool *crash_safe);

/* Makes the close frame close this descriptor. */
int parachute_holds(struct sockalive_tracee *tracee, int descriptor);

/* As tracee_call, over the parachute. */
int parachute_call(struct sockalive_tracee *tracee, enum arch_call call, const uint64_t arguments[6], int64_t *result);

/* Back to what was found. Whatever fails here, the parachute or the kernel's own restart remains. */
void parachute_fold(struct sockalive_tracee *tracee);

/*
 * All the calls with one stop: each returns into the frame that makes the next; at the end the thread
 * sends itself a signal that stops it. Killed meanwhile, it runs along the chain into the parachute.
 * -EAGAIN: not in this target. (5 readings, 4 settings, 4 readings, the whole hold: 135 us with chains,
 * 300 to 370 us call by call on a sleeping target; 150 to 200 us and 760 us on a spinning one.)
 */
struct chain_call {
    enum arch_call call;
    uint64_t arguments[6];
    uint64_t array;
};
int parachute_chain(struct sockalive_tracee *tracee, const struct chain_call *calls, size_t count);

#endif
