/* x86-64: instruction bytes and register names, nothing else. */
#if defined(__x86_64__)
#include "remote_call.h"

#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define CODE_SEGMENT_64 0x33
#define RED_ZONE 128        /* System V ABI: the 128 bytes below rsp belong to the function */
#define TRAP_FLAG 0x100     /* single step: would turn the call into a SIGTRAP */
#define DIRECTION_FLAG 0x400
#define X32_CALL 0x40000000

bool arch_find_code(struct arch_code *code, const uint8_t *bytes, size_t size, uint64_t address)
{
    static const uint8_t syscall_instruction[] = {0x0f, 0x05};
    const uint8_t *found = memmem(bytes, size, syscall_instruction, sizeof syscall_instruction);
    if (found)
        code->call = address + (uint64_t)(found - bytes);
    return found != NULL;
}

int arch_read(pid_t tid, struct arch_registers *registers)
{
    if (ptrace(PTRACE_GETREGS, tid, NULL, &registers->user) < 0)
        return -errno;
    if (registers->user.cs != CODE_SEGMENT_64)
        return -EOPNOTSUPP;
    if ((int64_t)registers->user.orig_rax >= 0 && registers->user.orig_rax & X32_CALL)
        return -EOPNOTSUPP;
    return 0;
}

int arch_write(pid_t tid, const struct arch_registers *registers)
{
    return ptrace(PTRACE_SETREGS, tid, NULL, &registers->user) < 0 ? -errno : 0;
}

uint64_t arch_stack_pointer(const struct arch_registers *registers)
{
    return registers->user.rsp;
}

uint64_t arch_free_stack(const struct arch_registers *registers)
{
    return (registers->user.rsp - RED_ZONE) & ~(uint64_t)15;
}

void arch_set_call(struct arch_registers *registers, const struct arch_code *code, enum arch_call call,
                   const uint64_t arguments[5])
{
    static const unsigned numbers[] = {[ARCH_GETSOCKOPT] = SYS_getsockopt, [ARCH_SETSOCKOPT] = SYS_setsockopt};
    struct user_regs_struct *user = &registers->user;
    user->rip = code->call;
    user->rax = numbers[call];
    /* Or the kernel takes rax for an interrupted call's result and backs rip up. */
    user->orig_rax = (unsigned long long)-1;
    user->rdi = arguments[0];
    user->rsi = arguments[1];
    user->rdx = arguments[2];
    user->r10 = arguments[3];
    user->r8 = arguments[4];
    user->eflags &= ~(unsigned long long)(TRAP_FLAG | DIRECTION_FLAG);
}

int arch_result(pid_t tid, int64_t *result)
{
    errno = 0;
    *result = ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user, regs.rax), NULL);
    return -errno;
}
#endif
