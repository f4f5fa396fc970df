/* Architectures whose registers nobody has described here yet: pidfd serves them, ptrace refuses. */
#if !defined(__x86_64__)
#include "CSockalive.h"

#include <errno.h>

int sockalive_hold(pid_t pid, int fd, uint64_t inode, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info)
{
    (void)pid, (void)fd, (void)inode, (void)timeout_ms, (void)out;
    *info = (struct sockalive_hold){.stage = SOCKALIVE_STAGE_UNSUPPORTED};
    return -ENOSYS;
}

void sockalive_release(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    (void)tracee, (void)info;
}

int sockalive_remote_getsockopt(struct sockalive_tracee *tracee, int level, int name, void *value,
                                uint32_t *length, struct sockalive_hold *info)
{
    (void)tracee, (void)level, (void)name, (void)value, (void)length, (void)info;
    return -ENOSYS;
}

int sockalive_remote_setsockopt(struct sockalive_tracee *tracee, int level, int name, const void *value,
                                uint32_t length, struct sockalive_hold *info)
{
    (void)tracee, (void)level, (void)name, (void)value, (void)length, (void)info;
    return -ENOSYS;
}

int sockalive_remote_options(struct sockalive_tracee *tracee, struct sockalive_option *options, size_t count,
                             struct sockalive_hold *info)
{
    (void)tracee, (void)options, (void)count, (void)info;
    return -ENOSYS;
}

int sockalive_on_own_thread(void (*body)(void *context), void *context)
{
    body(context);
    return 0;
}
#endif
