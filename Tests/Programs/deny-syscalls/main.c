/*
 * Runs a command under a seccomp filter that makes chosen system calls fail, as on an older kernel (ENOSYS) or a
 * stricter machine (EPERM).
 *
 *   deny-syscalls NAME=ERROR… -- COMMAND [ARGUMENT]…
 *
 * NAME: pidfd_open, pidfd_getfd, ptrace, socket, getsockopt, setresuid; pidfd_thread is pidfd_open only with the flag
 * PIDFD_THREAD, as before Linux 6.9; read_memory is pread64 at the address of 64-bit code. ERROR: ENOSYS, EPERM, EINVAL
 * or EMFILE.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
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

#define RULES_MAX 16

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
    {"pidfd_open", SYS_pidfd_open},
    {"pidfd_getfd", SYS_pidfd_getfd},
    {"ptrace", SYS_ptrace},
    {"read_memory", SYS_pread64},
    {"socket", SYS_socket},
    {"getsockopt", SYS_getsockopt},
    {"setresuid", SYS_setresuid},
    {"pidfd_thread", SYS_pidfd_open},
};

_Noreturn static void usage(const char *word)
{
    fprintf(stderr, "usage: deny-syscalls NAME=ENOSYS|EPERM|EINVAL|EMFILE... -- COMMAND [ARGUMENT]... (at %s)\n", word);
    exit(64);
}

static unsigned call_number(const char *rule)
{
    size_t length = strcspn(rule, "=");

    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strlen(calls[i].name) == length && strncmp(calls[i].name, rule, length) == 0)
            return calls[i].number;
    }
    usage(rule);
}

static unsigned error_number(const char *rule)
{
    const char *error = rule + strcspn(rule, "=");

    if (strcmp(error, "=ENOSYS") == 0)
        return ENOSYS;
    if (strcmp(error, "=EPERM") == 0)
        return EPERM;
    if (strcmp(error, "=EINVAL") == 0)
        return EINVAL;
    if (strcmp(error, "=EMFILE") == 0)
        return EMFILE;
    usage(rule);
}

int main(int argc, char **argv)
{
    struct sock_filter code[5 * RULES_MAX + 2];
    unsigned short length = 0;
    int i = 1;

    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (; i < argc && i <= RULES_MAX && strcmp(argv[i], "--") != 0; i++) {
        bool by_flag = strncmp(argv[i], "pidfd_thread=", 13) == 0;
        bool by_address = strncmp(argv[i], "read_memory=", 12) == 0;

        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call_number(argv[i]), 0,
                                                      by_flag || by_address ? 3 : 1);
        if (by_flag) {
            /* The flag PIDFD_THREAD is O_EXCL (linux/pidfd.h). */
            code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                          offsetof(struct seccomp_data, args[1]));
            code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_EXCL, 0, 1);
        }
        if (by_address) {
            /* The upper half of the offset: no file is that long. */
            code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                          offsetof(struct seccomp_data, args[3]) + 4);
            code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
        }
        code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error_number(argv[i]));
        if (by_flag || by_address)
            code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    }
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
