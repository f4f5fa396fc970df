/*
 * This process and its threads: GNU extensions (CPU_*, sched_getcpu, setns, unshare, setresuid), a variadic function
 * (prctl), and a call without a wrapper (capset).
 */
#include "CSockalive.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int sockalive_processors(void)
{
    cpu_set_t allowed;
    /* EINVAL: the machine has more processors than the set. */
    return sched_getaffinity(0, sizeof allowed, &allowed) < 0 ? CPU_SETSIZE : CPU_COUNT(&allowed);
}

int sockalive_start_on_other_cpu(pthread_t *thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t elsewhere;
    cpu_set_t allowed, others;

    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return -pthread_create(thread, NULL, run, argument);
    others = allowed;
    CPU_CLR(sched_getcpu(), &others);
    pthread_attr_init(&elsewhere);
    pthread_attr_setaffinity_np(&elsewhere, sizeof others, &others);
    int error = pthread_create(thread, &elsewhere, run, argument);
    pthread_attr_destroy(&elsewhere);
    /* It fails without another processor, or in a sandbox. Then the kernel chooses the processor. */
    if (error)
        return -pthread_create(thread, NULL, run, argument);
    pthread_setaffinity_np(*thread, sizeof allowed, &allowed);
    return 0;
}

pid_t sockalive_thread_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

int sockalive_enter_network(int netns)
{
    return setns(netns, CLONE_NEWNET) < 0 ? -errno : 0;
}

int sockalive_unshare(int namespaces)
{
    return unshare(namespaces) < 0 ? -errno : 0;
}

int sockalive_die_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}

int sockalive_adopt_orphans(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ? -errno : 0;
}

pid_t sockalive_fork(void)
{
    pid_t child = fork();
    return child < 0 ? -errno : child;
}

/* The ambient capabilities end together with the permitted ones (capabilities(7)). */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}}, left[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capset, &header, none) < 0 || syscall(SYS_capget, &header, left) < 0)
        return -errno;
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (left[i].effective || left[i].permitted || left[i].inheritable)
            return -EPERM;
    }
    return 0;
}

int sockalive_become(uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
    uid_t ruid, euid, suid;
    gid_t rgid, egid, sgid;

    /*
     * Groups first: setgroups needs CAP_SETGID, which the change of the user drops. A process that already is that user
     * keeps its groups.
     */
    bool is_same = geteuid() == uid && getegid() == gid;
    if (setgroups(count, groups) < 0 && !(is_same && errno == EPERM))
        return -errno;
    /*
     * A change of the user sets the dumpable flag to fs.suid_dumpable (kernel/cred.c, commit_creds). If that is 1, the
     * new user might trace this process. The permitted capabilities prevent this until the process is undumpable.
     */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    int error = drop_capabilities();
    if (error)
        return error;
    if (getresuid(&ruid, &euid, &suid) < 0 || getresgid(&rgid, &egid, &sgid) < 0)
        return -errno;
    if (ruid != uid || euid != uid || suid != uid || rgid != gid || egid != gid || sgid != gid)
        return -EPERM;
    /* After the change of user, which takes it back (kernel/cred.c, commit_creds). */
    return sockalive_die_with_parent();
}
