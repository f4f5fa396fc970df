/* x86-64 and its 32-bit programs: instruction bytes, register names, the shape of a signal frame. */
#if defined(__x86_64__)
#include "remote_call.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define CODE_SEGMENT_64 0x33 /* __USER_CS; another (an LDT's) is a mode of its own */
#define CODE_SEGMENT_32 0x23 /* __USER32_CS */
#define RED_ZONE 128         /* System V ABI: the 128 bytes below rsp belong to the function; not in i386 */
#define TRAP_FLAG 0x100      /* single step: would turn the call into a SIGTRAP */
#define DIRECTION_FLAG 0x400
#define X32_CALL 0x40000000

/* Results that the kernel keeps to itself while a call is interrupted (include/linux/errno.h). */
enum { ERESTARTSYS = 512, ERESTARTNOINTR = 513, ERESTARTNOHAND = 514, ERESTART_RESTARTBLOCK = 516 };

int arch_read(pid_t tid, bool is_32_bit, struct arch_registers *registers)
{
    /* The 64-bit layout even of a 32-bit thread (arch_ptrace, PTRACE_GETREGS). */
    if (ptrace(PTRACE_GETREGS, tid, NULL, &registers->user) < 0)
        return -errno;
    const struct user_regs_struct *user = &registers->user;
    if (user->cs != (is_32_bit ? CODE_SEGMENT_32 : CODE_SEGMENT_64))
        return -EOPNOTSUPP;
    return (int32_t)user->orig_rax >= 0 && user->orig_rax & X32_CALL ? -EOPNOTSUPP : 0;
}

int arch_write(pid_t tid, const struct arch_registers *registers)
{
    return ptrace(PTRACE_SETREGS, tid, NULL, &registers->user) < 0 ? -errno : 0;
}

uint64_t arch_stack_pointer(const struct arch_registers *registers)
{
    return registers->user.rsp;
}

uint64_t arch_thread_pointer(bool is_32_bit, const struct arch_registers *registers)
{
    uint64_t base = is_32_bit ? registers->user.gs_base : registers->user.fs_base;
    return base ? base : 1;
}

uint64_t arch_free_stack(bool is_32_bit, const struct arch_registers *registers)
{
    return (registers->user.rsp - (is_32_bit ? 0 : RED_ZONE)) & ~(uint64_t)63;
}

uint64_t arch_call_site(const struct arch_registers *found)
{
    return (int32_t)found->user.orig_rax >= 0 ? found->user.rip - 2 : 0;
}

void arch_abort_sequence(struct arch_registers *found, uint64_t start, uint64_t size, uint64_t abort)
{
    if (found->user.rip - start < size)
        found->user.rip = abort;
}

/*
 * Calls that answer EINTR merely because they were stopped, and have then done nothing yet, so that
 * they can be made again: signal(7), "Interruption of system calls ... by stop signals", and sockets
 * with a timeout (sock_intr_errno). Not close, which has closed.
 */
static const uint16_t repeatable_64[] = {
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg,
    SYS_sendmmsg, SYS_sendfile, SYS_splice, SYS_accept, SYS_accept4, SYS_connect, SYS_semop, SYS_semtimedop,
    SYS_rt_sigtimedwait, SYS_epoll_wait, SYS_epoll_pwait, 441 /* epoll_pwait2 */, SYS_io_getevents,
    333 /* io_pgetevents */, 426 /* io_uring_enter */,
};
static const uint16_t repeatable_32[] = {
    3 /* read */, 4 /* write */, 145 /* readv */, 146 /* writev */, 102 /* socketcall */, 117 /* ipc */,
    337, 417 /* recvmmsg */, 345 /* sendmmsg */, 362 /* connect */, 364 /* accept4 */, 369, 370 /* sendto, sendmsg */,
    371, 372 /* recvfrom, recvmsg */, 187, 239 /* sendfile */, 313 /* splice */, 420 /* semtimedop */,
    177, 421 /* rt_sigtimedwait */, 256 /* epoll_wait */, 319 /* epoll_pwait */, 441 /* epoll_pwait2 */,
    247 /* io_getevents */, 385, 416 /* io_pgetevents */, 426 /* io_uring_enter */,
};

static bool is_among(uint64_t number, const uint16_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (numbers[i] == number)
            return true;
    }
    return false;
}

static bool may_repeat(const uint8_t instruction[2], uint64_t number)
{
    if (memcmp(instruction, "\x0f\x05", 2) == 0)
        return is_among(number, repeatable_64, sizeof repeatable_64 / sizeof *repeatable_64);
    /* sysenter as well: the vDSO has `int $0x80` where an interrupted call is to be made again. */
    if (memcmp(instruction, "\xcd\x80", 2) == 0)
        return is_among(number, repeatable_32, sizeof repeatable_32 / sizeof *repeatable_32);
    return false;
}

/* Calls with a restart block that come to the same when made again: no timeout, or one that names the hour. */
static bool sleeps_absolutely(const uint8_t instruction[2], const struct user_regs_struct *user)
{
    bool is_64 = memcmp(instruction, "\x0f\x05", 2) == 0;
    if (user->orig_rax == (is_64 ? SYS_poll : 168))
        return (int32_t)user->rdx < 0;
    if (user->orig_rax == (is_64 ? SYS_futex : 240) || (!is_64 && user->orig_rax == 422 /* futex_time64 */))
        return ((is_64 ? user->rsi : user->rcx) & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    return false;
}

bool arch_sleeps_by_block(const struct arch_registers *by_kernel)
{
    return (int32_t)by_kernel->user.orig_rax >= 0 && (int32_t)by_kernel->user.rax == -ERESTART_RESTARTBLOCK;
}

void arch_take_up_again(const uint8_t instruction[2], struct arch_registers *by_kernel, struct arch_registers *by_hand)
{
    struct user_regs_struct *kernel = &by_kernel->user, *hand = &by_hand->user;
    /* -1: as rt_sigreturn leaves it; not in a call. */
    hand->orig_rax = (unsigned long long)-1;
    if ((int32_t)kernel->orig_rax < 0)
        return;
    /* "Start again unless a handler runs; then EINTR": what the call would have said of a real signal. */
    if (((int32_t)kernel->rax == -EINTR && may_repeat(instruction, kernel->orig_rax)) ||
        (arch_sleeps_by_block(by_kernel) && sleeps_absolutely(instruction, kernel)))
        kernel->rax = (unsigned long long)-ERESTARTNOHAND;
    switch (-(int32_t)kernel->rax) {
    case ERESTARTSYS: case ERESTARTNOINTR: case ERESTARTNOHAND:
    case ERESTART_RESTARTBLOCK: /* rt_sigreturn drops the restart block: the sleep begins anew, late but right */
        hand->rax = kernel->orig_rax;
        hand->rip -= 2;
    }
}

static void set_call_32(struct user_regs_struct *user, enum arch_call call, const uint64_t arguments[6], uint64_t array)
{
    /* socketcall(2) for the socket calls: kernels before 4.3 have no other. Its numbers: linux/net.h. */
    static const struct { unsigned number, sub; } calls[] = {
        [ARCH_GETSOCKOPT] = {102, 15}, [ARCH_SETSOCKOPT] = {102, 14}, [ARCH_FCNTL] = {221 /* fcntl64 */, 0},
        [ARCH_CLOSE] = {6, 0}, [ARCH_MMAP] = {192 /* mmap2 */, 0}, [ARCH_MUNMAP] = {91, 0}, [ARCH_TKILL] = {238, 0},
    };
    user->rax = calls[call].number;
    user->rbx = calls[call].sub ? calls[call].sub : (uint32_t)arguments[0];
    user->rcx = calls[call].sub ? array : (uint32_t)arguments[1];
    user->rdx = (uint32_t)arguments[2];
    user->rsi = (uint32_t)arguments[3];
    user->rdi = (uint32_t)arguments[4];
    user->rbp = (uint32_t)arguments[5];
}

static void set_call_64(struct user_regs_struct *user, enum arch_call call, const uint64_t arguments[6])
{
    static const unsigned numbers[] = {
        [ARCH_GETSOCKOPT] = SYS_getsockopt, [ARCH_SETSOCKOPT] = SYS_setsockopt, [ARCH_FCNTL] = SYS_fcntl,
        [ARCH_CLOSE] = SYS_close, [ARCH_MMAP] = SYS_mmap, [ARCH_MUNMAP] = SYS_munmap, [ARCH_TKILL] = SYS_tkill,
    };
    user->rax = numbers[call];
    user->rdi = arguments[0];
    user->rsi = arguments[1];
    user->rdx = arguments[2];
    user->r10 = arguments[3];
    user->r8 = arguments[4];
    user->r9 = arguments[5];
}

void arch_set_call(struct arch_registers *registers, const struct sockalive_target *target, enum arch_call call,
                   const uint64_t arguments[6], uint64_t stack, uint64_t array)
{
    struct user_regs_struct *user = &registers->user;
    if (target->is_32_bit)
        set_call_32(user, call, arguments, array);
    else
        set_call_64(user, call, arguments);
    user->rip = target->call.address;
    user->rsp = stack;
    /* Or the kernel takes rax for an interrupted call's result and backs rip up. */
    user->orig_rax = (unsigned long long)-1;
    user->eflags &= ~(unsigned long long)(TRAP_FLAG | DIRECTION_FLAG);
}

int arch_result(pid_t tid, bool is_32_bit, int64_t *result)
{
    errno = 0;
    *result = ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user, regs.rax), NULL);
    if (is_32_bit)
        *result = (uint64_t)*result >= (uint32_t)-4095 ? (int32_t)*result : (int64_t)(uint32_t)*result;
    return -errno;
}

/* ---- floating point: asm/sigcontext.h, arch/x86/kernel/fpu/signal.c ---------- */

#define X86_XSTATE 0x202     /* NT_X86_XSTATE */
#define LEGACY_SIZE 512      /* FXSAVE area, in front of the XSAVE header */
#define HEADER_SIZE 64
#define FEATURES 63          /* bits of XCR0 (CPUID leaf 0xd) */
#define SOFTWARE_BYTES 464   /* struct _fpx_sw_bytes, the area's last 48 bytes */
#define MAGIC_1 0x46505853u
#define MAGIC_2 0x46505845u
#define DYNAMIC_FEATURES (1ull << 18) /* AMX tile data: room for it only after arch_prctl allowed it */
#define FSAVE_SIZE 112       /* struct _fpstate_32 puts the old 387 layout in front */
#define XSAVE_AT 128         /* in the copy: aligned to 64, with room for that in front */

struct software_bytes {
    uint32_t magic, extended_size;
    uint64_t features;
    uint32_t size, padding[7];
};

/* Where each feature's part of an XSAVE area ends: the processor's, the same for every target. */
static uint32_t feature_ends[FEATURES];

static void measure(void)
{
    for (unsigned i = 2; i < FEATURES; i++) {
        unsigned size, offset, flags, unused;
        if (__get_cpuid_count(0xd, i, &size, &offset, &flags, &unused))
            feature_ends[i] = offset + size;
    }
}

void arch_measure_floating(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, measure);
}

/* The XSAVE area's size with these features, in the standard format. */
static size_t xsave_size(uint64_t features)
{
    size_t end = LEGACY_SIZE + HEADER_SIZE;
    for (unsigned i = 2; i < FEATURES; i++) {
        if (features >> i & 1 && feature_ends[i] > end)
            end = feature_ends[i];
    }
    return end;
}

int arch_read_floating(pid_t tid, bool is_32_bit, uint8_t copy[ARCH_FLOATING_MAX], struct arch_floating *where)
{
    uint8_t *area = copy + XSAVE_AT;
    struct iovec all = {area, ARCH_FLOATING_MAX - XSAVE_AT - 64}, old = {area - FSAVE_SIZE, 108};
    if (ptrace(PTRACE_GETREGSET, tid, (void *)X86_XSTATE, &all) < 0)
        return -errno;
    uint64_t features, present;
    memcpy(&features, area + SOFTWARE_BYTES, sizeof features); /* ptrace puts XCR0 here */
    memcpy(&present, area + LEGACY_SIZE, sizeof present);      /* XSTATE_BV */
    features &= ~DYNAMIC_FEATURES | present;
    size_t size = xsave_size(features);
    if (size > all.iov_len)
        return -EOVERFLOW;
    where->start = is_32_bit ? XSAVE_AT - FSAVE_SIZE : XSAVE_AT;
    where->end = XSAVE_AT + size + sizeof(uint32_t);
    where->full = all.iov_len;
    /*
     * check_xstate_in_sigframe: a size beyond what the thread was granted, or a missing second magic
     * word, and all but the FXSAVE part is dropped: the upper halves of the vector registers.
     */
    struct software_bytes software = {
        .magic = MAGIC_1, .features = features, .size = (uint32_t)size,
        .extended_size = (uint32_t)(where->end - where->start),
    };
    memcpy(area + SOFTWARE_BYTES, &software, sizeof software);
    memcpy(area + size, &(uint32_t){MAGIC_2}, sizeof(uint32_t));
    if (!is_32_bit)
        return 0;
    /* A 32-bit frame's x87 registers come from the old layout, with status and magic (0: FXSAVE follows) behind. */
    if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRFPREG, &old) < 0)
        return -errno;
    memcpy(area - 4, area - FSAVE_SIZE + 4, 2);
    memset(area - 2, 0, 2);
    return 0;
}

int arch_write_floating(pid_t tid, uint8_t copy[ARCH_FLOATING_MAX], const struct arch_floating *where)
{
    struct iovec all = {copy + XSAVE_AT, where->full};
    return ptrace(PTRACE_SETREGSET, tid, (void *)X86_XSTATE, &all) < 0 ? -errno : 0;
}

/* ---- signal frames: asm/ucontext.h, arch/x86/include/asm/sigframe.h ---------- */

#define UC_FP_XSTATE 1
#define UC_SIGCONTEXT_SS 2
#define UC_STRICT_RESTORE_SS 4
/* do_sigaltstack refuses it, and rt_sigreturn takes no notice: the alternate stack stays what it is. */
#define NO_SUCH_MODE 4

struct frame_64 {
    uint64_t back; /* rt_sigreturn takes the frame to begin one word below the stack pointer */
    uint64_t flags, link, stack_pointer, stack_mode, stack_size;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, trap, old_mask, cr2, floating, reserved[8];
    uint64_t mask;
};

struct frame_32 {
    uint32_t back, signal, info_address, context_address;
    uint8_t info[128];
    uint32_t flags, link, stack_pointer, stack_mode, stack_size;
    uint32_t gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trap, error, eip, cs, eflags, esp_at_signal, ss;
    uint32_t floating, old_mask, cr2;
    uint32_t mask[2];
};

_Static_assert(sizeof(struct frame_64) == 312 && sizeof(struct frame_32) == 260, "as the kernel lays them out");

static struct frame_64 make_frame_64(const struct user_regs_struct *user, uint64_t mask, uint64_t floating)
{
    return (struct frame_64){
        .flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS, .stack_mode = NO_SUCH_MODE,
        .r8 = user->r8, .r9 = user->r9, .r10 = user->r10, .r11 = user->r11, .r12 = user->r12, .r13 = user->r13,
        .r14 = user->r14, .r15 = user->r15, .rdi = user->rdi, .rsi = user->rsi, .rbp = user->rbp, .rbx = user->rbx,
        .rdx = user->rdx, .rax = user->rax, .rcx = user->rcx, .rsp = user->rsp, .rip = user->rip,
        .eflags = user->eflags, .cs = (uint16_t)user->cs, .ss = (uint16_t)user->ss, .floating = floating, .mask = mask,
    };
}

static struct frame_32 make_frame_32(const struct user_regs_struct *user, uint64_t mask, uint64_t floating)
{
    return (struct frame_32){
        .flags = UC_FP_XSTATE, .stack_mode = NO_SUCH_MODE,
        .gs = (uint16_t)user->gs, .fs = (uint16_t)user->fs, .es = (uint16_t)user->es, .ds = (uint16_t)user->ds,
        .edi = (uint32_t)user->rdi, .esi = (uint32_t)user->rsi, .ebp = (uint32_t)user->rbp, .esp = (uint32_t)user->rsp,
        .ebx = (uint32_t)user->rbx, .edx = (uint32_t)user->rdx, .ecx = (uint32_t)user->rcx, .eax = (uint32_t)user->rax,
        .eip = (uint32_t)user->rip, .cs = (uint16_t)user->cs, .eflags = (uint32_t)user->eflags,
        .ss = (uint16_t)user->ss, .floating = (uint32_t)floating, .mask = {(uint32_t)mask, (uint32_t)(mask >> 32)},
    };
}

void arch_make_frame(uint8_t frame[ARCH_FRAME_SIZE], const struct sockalive_target *target,
                     const struct arch_registers *registers, uint64_t mask, uint64_t floating)
{
    memset(frame, 0, ARCH_FRAME_SIZE);
    if (target->is_32_bit) {
        struct frame_32 made = make_frame_32(&registers->user, mask, floating);
        made.back = (uint32_t)target->sigreturn.address;
        memcpy(frame + target->skipped * 4, &made, sizeof made);
    } else {
        struct frame_64 made = make_frame_64(&registers->user, mask, floating);
        made.back = target->sigreturn.address;
        memcpy(frame, &made, sizeof made);
    }
}
#endif
