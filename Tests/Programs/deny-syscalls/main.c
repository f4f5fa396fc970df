/*
 * Runs a command under a seccomp filter that makes chosen system calls fail, as on an older kernel (ENOSYS, EINVAL,
 * EIO) or a stricter machine (EPERM).
 *
 *   deny-syscalls NAME=ERROR… -- COMMAND [ARGUMENT]…
 *
 * NAME is a system call: bpf, pidfd_open, pidfd_getfd, ptrace, socket, getsockopt, setresuid, waitid, rseq, getrandom,
 * getdents64. Or it is a part of one:
 *
 *   pidfd_thread        pidfd_open with the flag PIDFD_THREAD, as before Linux 6.9
 *   read_memory         pread64 at the address of 64-bit code
 *   waitid_wall         waitid with the flag __WALL, as before Linux 4.7 (EINVAL)
 *   signal_mask         PTRACE_GETSIGMASK and PTRACE_SETSIGMASK, as before Linux 3.11 (EIO)
 *   suspend_seccomp     the option PTRACE_O_SUSPEND_SECCOMP, as before Linux 4.3 (EINVAL)
 *   rseq_configuration  PTRACE_GET_RSEQ_CONFIGURATION, as before Linux 5.13 (EIO)
 *   syscall_info        PTRACE_GET_SYSCALL_INFO, as before Linux 5.3 (EIO)
 *
 * ERROR: ENOSYS, EPERM, EINVAL, EMFILE, EIO or EAGAIN.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_rseq
#define SYS_rseq 334
#endif

#define RULES_MAX 16
#define RULE_LENGTH_MAX 10
/* linux/wait.h, linux/ptrace.h. */
#define WALL 0x40000000u
#define SETOPTIONS 0x4200u
#define SEIZE 0x4206u
#define GETSIGMASK 0x420au
#define SETSIGMASK 0x420bu
#define GET_SYSCALL_INFO 0x420eu
#define GET_RSEQ_CONFIGURATION 0x420fu
#define O_SUSPEND_SECCOMP (1u << 21)

static const struct {
    const char *name;
    unsigned number;
    /* If not 0: the first argument is one of them. */
    unsigned requests[2];
    /* If not 0: this argument has one of these bits in its lower half, or, without bits, any in its upper half. */
    unsigned argument, bits;
} calls[] = {
    {"bpf", SYS_bpf, {0}, 0, 0},
    {"pidfd_open", SYS_pidfd_open, {0}, 0, 0},
    {"pidfd_getfd", SYS_pidfd_getfd, {0}, 0, 0},
    {"ptrace", SYS_ptrace, {0}, 0, 0},
    {"socket", SYS_socket, {0}, 0, 0},
    {"getsockopt", SYS_getsockopt, {0}, 0, 0},
    {"setresuid", SYS_setresuid, {0}, 0, 0},
    {"waitid", SYS_waitid, {0}, 0, 0},
    {"rseq", SYS_rseq, {0}, 0, 0},
    {"getrandom", SYS_getrandom, {0}, 0, 0},
    {"getdents64", SYS_getdents64, {0}, 0, 0},
    /* The flag PIDFD_THREAD is O_EXCL (linux/pidfd.h). */
    {"pidfd_thread", SYS_pidfd_open, {0}, 1, O_EXCL},
    /* The upper half of the offset: no file is that long. */
    {"read_memory", SYS_pread64, {0}, 3, 0},
    {"waitid_wall", SYS_waitid, {0}, 3, WALL},
    {"signal_mask", SYS_ptrace, {GETSIGMASK, SETSIGMASK}, 0, 0},
    {"suspend_seccomp", SYS_ptrace, {SETOPTIONS, SEIZE}, 3, O_SUSPEND_SECCOMP},
    {"rseq_configuration", SYS_ptrace, {GET_RSEQ_CONFIGURATION, GET_RSEQ_CONFIGURATION}, 0, 0},
    {"syscall_info", SYS_ptrace, {GET_SYSCALL_INFO, GET_SYSCALL_INFO}, 0, 0},
};

static const struct {
    const char *name;
    unsigned number;
} errors[] = {{"ENOSYS", ENOSYS}, {"EPERM", EPERM}, {"EINVAL", EINVAL},
              {"EMFILE", EMFILE}, {"EIO", EIO},     {"EAGAIN", EAGAIN}};

static struct sock_filter code[RULE_LENGTH_MAX * RULES_MAX + 1];
static unsigned short length;

_Noreturn static void usage(const char *word)
{
    fprintf(stderr, "usage: deny-syscalls NAME=ERROR... -- COMMAND [ARGUMENT]... (at %s)\n", word);
    exit(64);
}

static unsigned call_index(const char *rule)
{
    size_t size = strcspn(rule, "=");

    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strlen(calls[i].name) == size && strncmp(calls[i].name, rule, size) == 0)
            return i;
    }
    usage(rule);
}

static unsigned error_number(const char *rule)
{
    const char *error = rule + strcspn(rule, "=");

    for (unsigned i = 0; *error && i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(error + 1, errors[i].name) == 0)
            return errors[i].number;
    }
    usage(rule);
}

static void load(size_t offset)
{
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset);
}

/* Jumps over so many instructions. */
static void jump(unsigned test, unsigned value, unsigned char if_true, unsigned char if_false)
{
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value, if_true, if_false);
}

static size_t argument(unsigned index)
{
    return offsetof(struct seccomp_data, args) + index * sizeof(__u64);
}

/* A jump out of the rule lands behind its last instruction. */
static void add_rule(const char *rule)
{
    unsigned which = call_index(rule), index = calls[which].argument;
    int has_request = calls[which].requests[0] != 0, has_argument = index != 0;
    unsigned char rest = (unsigned char)(1 + 3 * has_request + 2 * has_argument);

    load(offsetof(struct seccomp_data, nr));
    jump(BPF_JEQ, calls[which].number, 0, rest);
    if (has_request) {
        load(argument(0));
        jump(BPF_JEQ, calls[which].requests[0], 1, 0);
        jump(BPF_JEQ, calls[which].requests[1], 0, (unsigned char)(1 + 2 * has_argument));
    }
    if (has_argument) {
        load(argument(index) + (calls[which].bits ? 0 : sizeof(__u32)));
        jump(BPF_JSET, calls[which].bits ? calls[which].bits : ~0u, 0, 1);
    }
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error_number(rule));
}

int main(int argc, char **argv)
{
    int i = 1;

    for (; i < argc && i <= RULES_MAX && strcmp(argv[i], "--") != 0; i++)
        add_rule(argv[i]);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (i + 1 >= argc || strcmp(argv[i], "--") != 0)
        usage("--");

    struct sock_fprog filter = {.len = length, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) {
        perror("deny-syscalls: seccomp");
        return 1;
    }
    execvp(argv[i + 1], argv + i + 1);
    perror(argv[i + 1]);
    return 127;
}
