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

/* [start, end) in the target's memory. */
struct span {
    uint64_t start, end;
};

/* ---- arch: one file an architecture ---------------------------------------- */

/* Where the target's own code holds the instructions that a remote call needs; 0: not found. */
struct arch_code {
    uint64_t call; /* the system call instruction */
};

/* One thread's general registers. */
struct arch_registers {
    struct user_regs_struct user;
};

enum arch_call { ARCH_GETSOCKOPT, ARCH_SETSOCKOPT };

/* Looks for instructions in size bytes that stand at address in the target; true: complete. */
bool arch_find_code(struct arch_code *code, const uint8_t *bytes, size_t size, uint64_t address);

/* Reads and writes the registers of a stopped thread: 0 or -errno; -EOPNOTSUPP: of no kind that can be served. */
int arch_read(pid_t tid, struct arch_registers *registers);
int arch_write(pid_t tid, const struct arch_registers *registers);
uint64_t arch_stack_pointer(const struct arch_registers *registers);

/* Where below the stack pointer the thread itself may keep nothing. */
uint64_t arch_free_stack(const struct arch_registers *registers);

/* Changes registers into those of one system call, at the instruction itself. */
void arch_set_call(struct arch_registers *registers, const struct arch_code *code, enum arch_call call,
                   const uint64_t arguments[5]);

/* What the call in a system-call-exit stop returned: 0 or -errno of the ptrace request. */
int arch_result(pid_t tid, int64_t *result);

/* ---- target.c: what can be known without stopping anything ------------------ */

#define TARGET_SPANS 512

struct target {
    pid_t pid, tid;
    int fd;
    uint64_t inode;
    struct arch_code code;
    struct span stacks[TARGET_SPANS]; /* mappings where memory below the stack pointer is the thread's own */
    size_t stack_count;
};

/* Fills in tid, code, stacks: 0, or -errno and the stage. */
int target_inspect(struct target *target, enum sockalive_stage *stage);

/* Is the descriptor of this thread the socket? */
bool target_is_socket(const struct target *target, pid_t tid, int fd);

/* Is there room for size bytes that end at top, on a stack where they disturb nobody? */
bool target_has_stack(const struct target *target, uint64_t top, size_t size);

#endif
