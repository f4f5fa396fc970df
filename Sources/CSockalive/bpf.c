/* Cgroups and the programs of the kernel's BPF machine: system calls without a wrapper in glibc. */
#include "CSockalive.h"

#include <errno.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The number is the same on every architecture. A C library that is older than the call does not define it. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

int sockalive_bpf(int command, union bpf_attr *attributes)
{
    long result = syscall(SYS_bpf, command, attributes, sizeof *attributes);
    return result < 0 ? -errno : (int)result;
}

int sockalive_open_beneath(int folder, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    long file = syscall(SYS_openat2, folder, path, &how, sizeof how);
    return file < 0 ? -errno : (int)file;
}

int64_t sockalive_file_system(int fd)
{
    struct statfs status;
    return fstatfs(fd, &status) < 0 ? -errno : (int64_t)(uint32_t)status.f_type;
}
