/*
 * Inside the remote call: who knows what.
 *
 *   target.c        reads /proc before the stop: which thread, where code, where stacks
 *   remote_call.c   the sequence: seize, stop, call, put back, let go
 *   arch_x86_64.c   instruction bytes, register names, the shape of a signal frame
 */
#ifndef SOCKALIVE_REMOTE_CALL_H
#define SOCKALIVE_REMOTE_CALL_H

#include "CSockalive.h"

#include <stddef.h>
#include <sys/user.h>

/* ---- arch: one file an architecture ---------------------------------------- */

enum arch_kind { ARCH_64, ARCH_32 };

/* Where the target's own code holds the instructions that a remote call needs; 0: not found. */
struct arch_code {
    enum arch_kind kind;
    uint64_t call;      /* the system call instruction, with a way to `ret` behind it if there is one */
    bool returns;       /* there is */
    unsigned skipped;   /* words that the way to `ret` takes off the stack */
    uint64_t sigreturn; /* loads rt_sigreturn's number and calls */
    uint64_t load;      /* `pop` into the number's register, then `ret`: serves where sigreturn is missing */
};

struct arch_registers {
    struct user_regs_struct user;
};

/* The floating-point and vector registers as rt_sigreturn takes them, in a copy that is 64-byte aligned. */
#define ARCH_FLOATING_MAX 16384
struct arch_floating {
    size_t start, end; /* of what a frame points to */
    size_t full;       /* of what ptrace gave, and takes back */
    uint32_t ends[63]; /* of each feature's part of an XSAVE area (CPUID leaf 0xd) */
};

#define ARCH_FRAME_SIZE 336 /* a signal frame with what stands before it, rounded up to 16 */

enum arch_call { ARCH_GETSOCKOPT, ARCH_SETSOCKOPT, ARCH_FCNTL, ARCH_CLOSE, ARCH_MMAP, ARCH_MUNMAP, ARCH_TKILL };

/* The kind of an ELF program by its first 20 bytes: 0, or -EOPNOTSUPP (x32, something foreign). */
int arch_kind_of(const uint8_t elf[20], enum arch_kind *kind);

/* Looks for instructions in size bytes that stand at address in the target; true: complete. */
bool arch_find_code(struct arch_code *code, const uint8_t *bytes, size_t size, uint64_t address);

/* Reads and writes the registers of a stopped thread: 0 or -errno; -EOPNOTSUPP: in a mode that cannot be served. */
int arch_read(pid_t tid, enum arch_kind kind, struct arch_registers *registers);
int arch_write(pid_t tid, const struct arch_registers *registers);
void arch_measure_floating(struct arch_floating *where);
int arch_read_floating(pid_t tid, enum arch_kind kind, uint8_t copy[ARCH_FLOATING_MAX], struct arch_floating *where);
int arch_write_floating(pid_t tid, uint8_t copy[ARCH_FLOATING_MAX], const struct arch_floating *where);

uint64_t arch_stack_pointer(const struct arch_registers *registers);
uint64_t arch_thread_pointer(enum arch_kind kind, const struct arch_registers *registers); /* never 0 */

/* The highest address below the stack pointer at which the thread itself keeps nothing, aligned to 64. */
uint64_t arch_free_stack(enum arch_kind kind, const struct arch_registers *registers);

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
void arch_set_call(struct arch_registers *registers, const struct arch_code *code, enum arch_call call,
                   const uint64_t arguments[6], uint64_t stack, uint64_t array);

void arch_set_stack(struct arch_registers *registers, uint64_t stack);

/* What the call in a system-call-exit stop returned: 0 or -errno of the ptrace request. */
int arch_result(pid_t tid, enum arch_kind kind, int64_t *result);

/*
 * A signal frame from which rt_sigreturn loads registers, signal mask and floating state. A call whose
 * stack pointer is the frame's address falls into it when its `ret` is reached.
 */
void arch_make_frame(uint8_t frame[ARCH_FRAME_SIZE], const struct arch_code *code,
                     const struct arch_registers *registers, uint64_t mask, uint64_t floating);

/* ---- target.c: what can be known without stopping anything ------------------ */

/* [start, end) in the target's memory. */
struct span {
    uint64_t start, end;
};

#define TARGET_SPANS 512

/* A mapping that may be a thread's stack. */
struct stack {
    struct span span;
    bool main; /* the main thread's, as the kernel made it */
};

struct target {
    pid_t pid, tid;
    int fd;
    uint64_t inode;
    struct arch_code code;
    bool seccomp, shadow_stack;
    pid_t own_tid;      /* tid in the target's own PID namespace; 0: unknown */
    uint64_t handled;   /* signals blocked or caught: bit n - 1 is signal n */
    int spare;          /* a descriptor number far from those in use */
    struct stack stacks[TARGET_SPANS];
    size_t stack_count;
};

/* Fills in all of it but pid, fd and inode: 0, or -errno and the stage. */
int target_inspect(struct target *target, enum sockalive_stage *stage);

/* Is the descriptor of this thread the socket? */
bool target_is_socket(const struct target *target, pid_t tid, int fd);

/* Does it have one thread only, so that nobody touches its descriptors while that one is held? */
bool target_is_single(const struct target *target);

/* The main thread's stack, or NULL. */
const struct span *target_main_stack(const struct target *target);

/*
 * Is there room for size bytes that end at top, on a stack where they disturb nobody? Where the
 * thread's own block lies tells whose stack it is; 0: not known yet.
 */
bool target_has_stack(const struct target *target, uint64_t top, uint64_t thread_pointer, size_t size);

#endif
