/*
 * The work of `sockalive inject --method pidfd` in minimal C. For processes called beremote it borrows each socket with
 * port 5633, reads it, sets it, and reads it back. It has no report, no checks and no other method.
 *
 *   keepalive        prints the number of sockets
 *   keepalive off    restores the defaults of a new socket
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    int level, name, on, off;
} options[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 1, 0},
    {IPPROTO_TCP, TCP_KEEPINTVL, 60, 75},
    {IPPROTO_TCP, TCP_KEEPCNT, 50, 9},
    {IPPROTO_TCP, TCP_KEEPIDLE, 600, 7200},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0},
};

static int is_off;

static int port_of(int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (ask(fd, (struct sockaddr *)&address, &length) < 0)
        return 0;
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static void read_options(int fd)
{
    for (int i = 0; i < 5; i++) {
        int value;
        socklen_t length = sizeof value;

        getsockopt(fd, options[i].level, options[i].name, &value, &length);
    }
}

static int treat(int pidfd, int number, unsigned long inode)
{
    int fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
    int done = 0;
    struct stat status;

    if (fd < 0)
        return 0;
    if (fstat(fd, &status) == 0 && status.st_ino == inode &&
        (port_of(fd, getsockname) == 5633 || port_of(fd, getpeername) == 5633)) {
        read_options(fd);
        for (int i = 0; i < 4; i++) {
            const int *value = is_off ? &options[i].off : &options[i].on;

            setsockopt(fd, options[i].level, options[i].name, value, sizeof *value);
        }
        read_options(fd);
        done = 1;
    }
    close(fd);
    return done;
}

static int treat_process(int pid)
{
    char path[64], link[64];
    struct dirent *entry;
    int pidfd = syscall(SYS_pidfd_open, pid, 0), count = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *folder = opendir(path);
    if (!folder || pidfd < 0)
        return 0;
    while ((entry = readdir(folder))) {
        unsigned long inode;
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, link, sizeof link - 1);

        if (length <= 0)
            continue;
        link[length] = 0;
        if (sscanf(link, "socket:[%lu]", &inode) == 1)
            count += treat(pidfd, atoi(entry->d_name), inode);
    }
    closedir(folder);
    close(pidfd);
    return count;
}

int main(int argc, char **argv)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int count = 0;

    is_off = argc > 1 && !strcmp(argv[1], "off");
    while ((entry = readdir(proc))) {
        char path[300], name[32];
        int pid = atoi(entry->d_name), file;
        ssize_t length;

        if (pid <= 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if ((file = open(path, O_RDONLY)) < 0)
            continue;
        length = read(file, name, sizeof name);
        close(file);
        if (length == 9 && !memcmp(name, "beremote\n", 9))
            count += treat_process(pid);
    }
    printf("%d\n", count);
    return 0;
}
