/*
 * Runs a command in a cgroup whose new connections get SO_KEEPALIVE from a BPF program (BPF_PROG_TYPE_SOCK_OPS). Of an
 * MPTCP socket that is the subflow alone.
 *
 *   sock-ops-keepalive [--multi | --override] CGROUP COMMAND [ARGUMENT]...
 *
 * CGROUP is a folder of a cgroup2 hierarchy, and is made. The BPF program stays attached until somebody removes it. Its
 * name is test_neighbour. Without an option it lets no other program be attached beside or below it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSTRUCTION(c, d, s, o, i) {.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)}

/* if (ops->op is ACTIVE_ESTABLISHED_CB) { int one = 1; bpf_setsockopt(ops, SOL_SOCKET, SO_KEEPALIVE, &one, 4); } */
static const struct bpf_insn program[] = {
    INSTRUCTION(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 0, 0),
    INSTRUCTION(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 7, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB),
    INSTRUCTION(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 1),
    INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, SOL_SOCKET),
    INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, SO_KEEPALIVE),
    INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_10, 0, 0),
    INSTRUCTION(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, -4),
    INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_5, 0, 0, 4),
    INSTRUCTION(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_setsockopt),
    INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1),
    INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
};

static int fail(const char *call)
{
    printf("failed %s: %s\n", call, strerror(errno));
    return 1;
}

int main(int argc, char **argv)
{
    union bpf_attr attach = {.attach_type = BPF_CGROUP_SOCK_OPS};
    if (argc > 1 && strcmp(argv[1], "--multi") == 0)
        attach.attach_flags = BPF_F_ALLOW_MULTI;
    if (argc > 1 && strcmp(argv[1], "--override") == 0)
        attach.attach_flags = BPF_F_ALLOW_OVERRIDE;
    if (attach.attach_flags) {
        argv++;
        argc--;
    }
    if (argc < 3)
        return 64;
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SOCK_OPS};
    load.insns = (uintptr_t)program;
    load.insn_cnt = sizeof program / sizeof *program;
    load.license = (uintptr_t) "Apache-2.0";
    strcpy(load.prog_name, "test_neighbour");
    if (mkdir(argv[1], 0755) < 0 && errno != EEXIST)
        return fail("mkdir");
    int cgroup = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int loaded = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    attach.target_fd = (uint32_t)cgroup;
    attach.attach_bpf_fd = (uint32_t)loaded;
    if (cgroup < 0 || loaded < 0 || syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0)
        return fail("bpf");
    int members = openat(cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (members < 0 || write(members, "0", 1) != 1)
        return fail("cgroup.procs");
    execvp(argv[2], argv + 2);
    return fail("execvp");
}
