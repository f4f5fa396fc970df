/* Descriptors: system calls without a wrapper in glibc 2.35 and older (pidfd), and a sock_diag socket. */
#include "CSockalive.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The numbers are the same on every architecture. A C library that is older than the call does not define them. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
/* linux/pidfd.h, as far as it is there: the flag is O_EXCL. */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

int sockalive_pidfd_open(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

int sockalive_pidfd_open_thread(pid_t tid)
{
    long fd = syscall(SYS_pidfd_open, tid, PIDFD_THREAD);
    return fd < 0 ? -errno : (int)fd;
}

int sockalive_pidfd_getfd(int pidfd, int fd)
{
    long copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    return copy < 0 ? -errno : (int)copy;
}

int sockalive_shares_descriptors(pid_t thread, pid_t other)
{
    long order = syscall(SYS_kcmp, thread, other, KCMP_FILES, 0, 0);
    return order < 0 ? -errno : order == 0;
}

ssize_t sockalive_getdents(int folder, void *entries, size_t size)
{
    long count = syscall(SYS_getdents64, folder, entries, size);
    return count < 0 ? -errno : count;
}

void sockalive_close_all_but(int kept)
{
    /* close_range(2), Linux 5.9. Before, what this program opens has small numbers. */
    if (kept > 3)
        syscall(SYS_close_range, 3, kept - 1, 0);
    if (syscall(SYS_close_range, kept < 3 ? 3 : kept + 1, ~0U, 0) == 0)
        return;
    for (int fd = 3; fd < 4096; fd++)
        if (fd != kept)
            close(fd);
}

int sockalive_close_by_exit(int fd)
{
    pid_t parent = getpid(), child = fork();
    int status;

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        /* The parent may have ended before that. */
        if (getppid() != parent)
            _exit(0);
        for (;;)
            pause();
    }
    if (child < 0)
        return -errno;
    close(fd);
    kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return 0;
}

ssize_t sockalive_socket_protocol(const char *path, char *name, size_t size)
{
    ssize_t count = getxattr(path, "system.sockprotoname", name, size);
    return count < 0 ? -errno : count;
}

int sockalive_socket_namespace(int fd, uint64_t *inode)
{
    struct stat status;
    int namespace = ioctl(fd, SIOCGSKNS);
    if (namespace < 0)
        return -errno;
    int result = fstat(namespace, &status) < 0 ? -errno : 0;
    close(namespace);
    *inode = status.st_ino;
    return result;
}

int sockalive_diag_socket(void)
{
    /* A socket that is connected to port 0 gets replies only from the kernel. */
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd < 0 ? -errno : fd;
}
