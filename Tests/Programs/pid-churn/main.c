/*
 * Gives one PID in turn to two processes that live for about 100 µs each. One calls itself "beremote" and has no
 * socket. The other has another name and a socket. That socket must never count as beremote's.
 *
 *   pid-churn PID
 *
 * Runs in its own PID namespace with its /proc mounted (it writes /proc/sys/kernel/ns_last_pid).
 *
 * Standard output, a line each:
 *   ready PORT
 *   churned TIMES RECYCLED TOUCHED   for each byte of input, and at its end, which ends the program: how often the PID was
 *                                    assigned, how often to the second process right after the first, and whether the
 *                                    second process's keepalive is on
 *   failed CALL: REASON
 */
#include "sessions.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int last_pid, pair[2];

static int connect_pair(void)
{
    struct sockaddr_storage address;
    socklen_t length = parse_address("127.0.0.1", 0, &address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1) < 0)
        fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(pair[0], (struct sockaddr *)&address, length) < 0 || (pair[1] = accept(listener, NULL, NULL)) < 0)
        fail("connect");
    close(listener);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* Forks a process that gets this PID, unless another fork is faster. */
static int live(int pid, const char *name, int has_socket)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", pid - 1);

    if (pwrite(last_pid, text, length, 0) != length)
        fail("ns_last_pid");
    int microseconds = rand() % 300;
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_NAME, name);
        if (!has_socket) {
            close(pair[0]);
            close(pair[1]);
        }
        usleep(microseconds);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return child == pid;
}

static int keepalive_is_on(int fd)
{
    int on = 0;
    socklen_t length = sizeof on;

    getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &length);
    return on;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        usage("pid-churn PID");
    int pid = atoi(argv[1]);
    long times = 0, recycled = 0;

    if ((last_pid = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC)) < 0)
        fail("open ns_last_pid");
    say("ready %d", connect_pair());
    for (ssize_t wanted = 1; wanted > 0;) {
        for (struct pollfd input = {.fd = 0, .events = POLLIN}; poll(&input, 1, 0) == 0; times++) {
            int first = live(pid, "beremote", 0);
            recycled += live(pid, "stranger", 1) && first;
        }
        wanted = read(0, &(char){0}, 1);
        say("churned %ld %ld %d", times, recycled, keepalive_is_on(pair[0]) || keepalive_is_on(pair[1]));
    }
    return 0;
}
