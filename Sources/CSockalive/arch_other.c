/* Architectures whose registers nobody has described here yet: pidfd serves them, ptrace refuses. */
#if !defined(__x86_64__)
#include "CSockalive.h"

#include <errno.h>

int sockalive_hold(const struct sockalive_target *target, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info)
{
    (void)target, (void)timeout_ms, (void)out;
    *info = (struct sockalive_hold){.stage = SOCKALIVE_STAGE_UNSUPPORTED};
    return -ENOSYS;
}

void sockalive_release(struct sockalive_tracee *tracee, struct sockalive_hold *info)
{
    (void)tracee, (void)info;
}

int sockalive_remote_option(struct sockalive_tracee *tracee, bool set, int level, int name, void *value,
                            uint32_t *length, struct sockalive_hold *info)
{
    (void)tracee, (void)set, (void)level, (void)name, (void)value, (void)length, (void)info;
    return -ENOSYS;
}

int sockalive_remote_options(struct sockalive_tracee *tracee, struct sockalive_option *options, size_t count,
                             struct sockalive_hold *info)
{
    (void)tracee, (void)options, (void)count, (void)info;
    return -ENOSYS;
}

ssize_t sockalive_read_memory(pid_t tid, uint64_t address, void *bytes, size_t size)
{
    (void)tid, (void)address, (void)bytes, (void)size;
    return -ENOSYS;
}
#endif
