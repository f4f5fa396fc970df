/* Connections that are in no descriptor table, in an unusual one, or under a changing number. */
#include "agent.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

void run_in_flight(void)
{
    int ends[2], fd;
    char byte = 'x';
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    start_peer(0);
    fd = connect_to_peer();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
        fail("socketpair");
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (sendmsg(ends[0], &message, 0) != 1)
        fail("sendmsg");
    close(fd);
    ready(" %d", ends[1]);
}

void run_path(void)
{
    char name[64];
    int spare, fd, path;

    start_peer(0);
    spare = open("/dev/null", O_RDONLY);
    fd = connect_to_peer();
    close(spare);
    sprintf(name, "/proc/self/fd/%d", fd);
    path = open(name, O_PATH);
    if (path != spare)
        fail("O_PATH");
    ready(" %d %d", path, fd);
}

static int connection, is_in_main;

/* In a table of its own the number is another file, or the connection. */
static void *use_own_table(void *ready)
{
    int null;

    if (unshare(CLONE_FILES) < 0 || (null = open("/dev/null", O_RDONLY)) < 0)
        fail("unshare");
    if (is_in_main)
        dup2(null, connection);
    *(volatile int *)ready = 1;
    for (;;)
        pause();
}

void run_thread_table(int wanted_in_main)
{
    static volatile int is_ready;
    pthread_t thread;

    is_in_main = wanted_in_main;
    start_peer(0);
    connection = connect_to_peer();
    if (pthread_create(&thread, NULL, use_own_table, (void *)&is_ready) != 0)
        fail("pthread_create");
    while (!is_ready)
        usleep(1000);
    if (!is_in_main)
        dup2(open("/dev/null", O_RDONLY), connection);
    ready(" %d", connection);
}

void run_move(void)
{
    int fd, next = 100;

    start_peer(0);
    fd = connect_to_peer();
    ready(" %d", fd);
    for (;;) {
        if (dup2(fd, next) < 0 || close(fd) < 0)
            fail("dup2");
        fd = next;
        next = next < 200 ? next + 1 : 100;
        usleep(10000);
    }
}
