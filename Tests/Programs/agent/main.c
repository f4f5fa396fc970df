/*
 * A program whose TCP connections are hard to find.
 *
 *   agent HOW [ARGUMENT]    connects to a peer of its own, and prints "ready PID PORT …"
 *
 *   plain [COUNT]      COUNT connections; prints their descriptors
 *   setuid USER        makes its connection, and then becomes USER
 *   elsewhere [COUNT]  its connection is in another network namespace than itself; COUNT connections are in its own;
 *                      prints the descriptor, and the inode of the connection's namespace
 *   pinned FILE        its connection is in the network namespace of FILE, in which no process is
 *   shared WHO         parent and child hold one connection by different numbers, and WHO (parent, child) has another
 *                      network namespace and the name "moved"; prints PARENT:FD CHILD:FD
 *   ring-direct        the connection is a direct descriptor of an io_uring
 *   ring               it has an io_uring, and an ordinary connection
 *   ring-empty         the same, and the table of the ring has places, and nothing in them
 *   in-flight          the connection was sent over a UNIX socket, closed, and not received
 *   path               an O_PATH descriptor of the connection has the lower number; prints both
 *   thread-table       the connection is in the table of a thread; its number is another file in the others
 *   main-table         the connection is in the table of the main thread; its number is another file in a thread's
 *   renamed            its name is "worker", whatever its file is called
 *   thread             a thread of the name "worker"; prints the descriptor and the thread's number
 *   move               the connection's number changes every 10 ms
 *   busy               three lasting connections, and twenty at a time that last 20 to 50 ms; prints the three
 */
#include "agent.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct sockaddr_in peer_address = {.sin_family = AF_INET};

void enter_new_network(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int any;

    if (unshare(CLONE_NEWNET) < 0 || (any = socket(AF_INET, SOCK_DGRAM, 0)) < 0)
        fail("unshare");
    if (ioctl(any, SIOCSIFFLAGS, &request) < 0)
        fail("SIOCSIFFLAGS");
    close(any);
}

static void echo(int listener)
{
    static struct pollfd polled[SESSIONS_MAX];
    nfds_t count = 1;
    char bytes[256];

    polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (;;) {
        if (poll(polled, count, -1) < 0)
            fail("poll");
        if (polled[0].revents && count < SESSIONS_MAX)
            polled[count++] = (struct pollfd){.fd = accept(listener, NULL, NULL), .events = POLLIN};
        for (nfds_t i = 1; i < count; i++) {
            ssize_t got;
            if (!polled[i].revents)
                continue;
            got = read(polled[i].fd, bytes, sizeof bytes);
            if (got > 0 && write(polled[i].fd, bytes, (size_t)got) == got)
                continue;
            close(polled[i].fd);
            polled[i--] = polled[--count];
        }
    }
}

pid_t start_peer(int isolated)
{
    struct sockaddr_in *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    socklen_t length = sizeof *shared;
    int done[2];
    char byte;
    pid_t pid;

    if (shared == MAP_FAILED || pipe(done) < 0)
        fail("mmap");
    pid = fork();
    if (pid == 0) {
        int listener;
        prctl(PR_SET_NAME, "peer");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (isolated)
            enter_new_network();
        *shared = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, (struct sockaddr *)shared, length) < 0 || listen(listener, 64) < 0)
            fail("listen");
        getsockname(listener, (struct sockaddr *)shared, &length);
        close(done[0]);
        close(done[1]);
        close(STDOUT_FILENO);
        echo(listener);
    }
    close(done[1]);
    if (pid < 0 || read(done[0], &byte, 1) != 0)
        fail("fork");
    close(done[0]);
    peer_address = *shared;
    munmap(shared, 4096);
    return pid;
}

int connect_to_peer(void)
{
    char byte = 'x';
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&peer_address, sizeof peer_address) < 0)
        fail("connect");
    /* The peer has accepted. */
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
        fail("echo");
    return fd;
}

/* Below the range that the kernel chooses from: no peer's port, not even another agent's. */
static struct sockaddr_in bind_low(int fd)
{
    static uint16_t port;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    do {
        port = port ? port + 1 : (uint16_t)(10000 + getpid() % 10000);
        address.sin_port = htons(port);
    } while (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno == EADDRINUSE && port < 32000);
    return address;
}

struct sockaddr_in connect_to_self(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = bind_low(listener);

    if (listen(listener, 1) < 0)
        fail("listen");
    bind_low(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || accept(listener, NULL, NULL) < 0)
        fail("connect");
    close(listener);
    return address;
}

void ready(const char *format, ...)
{
    va_list arguments;

    printf("ready %d %d", getpid(), ntohs(peer_address.sin_port));
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    say("");
}

static void run_plain(int count)
{
    char text[4096] = "";

    start_peer(0);
    while (count-- > 0)
        sprintf(text + strlen(text), " %d", connect_to_peer());
    ready("%s", text);
}

static void run_setuid(uid_t user)
{
    int fd;

    start_peer(0);
    fd = connect_to_peer();
    if (setresuid(user, user, user) < 0)
        fail("setresuid");
    ready(" %d", fd);
}

static void run_elsewhere(int count)
{
    struct rlimit limit = {SESSIONS_MAX, SESSIONS_MAX};
    struct stat status;
    char path[64];
    int home = open("/proc/self/ns/net", O_RDONLY), there, fd;

    setrlimit(RLIMIT_NOFILE, &limit);
    sprintf(path, "/proc/%d/ns/net", start_peer(1));
    there = open(path, O_RDONLY);
    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
        fail("setns");
    fd = connect_to_peer();
    if (setns(home, CLONE_NEWNET) < 0 || fstat(there, &status) < 0)
        fail("setns");
    close(there);
    while (count-- > 0)
        connect_to_self();
    ready(" %d %ju", fd, (uintmax_t)status.st_ino);
}

static void run_pinned(const char *path)
{
    int home = open("/proc/self/ns/net", O_RDONLY), there = open(path, O_RDONLY);

    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
        fail("setns");
    peer_address = connect_to_self();
    if (setns(home, CLONE_NEWNET) < 0)
        fail("setns");
    close(there);
    close(home);
    ready("%s", "");
}

static void run_shared(const char *who)
{
    int fd, done[2];
    char byte;
    pid_t child;

    start_peer(0);
    fd = connect_to_peer();
    if (pipe(done) < 0 || (child = fork()) < 0)
        fail("fork");
    if (strcmp(who, child == 0 ? "child" : "parent") == 0) {
        prctl(PR_SET_NAME, "moved");
        enter_new_network();
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fd, fd + 20);
        close(fd);
        close(done[0]);
        close(done[1]);
        return;
    }
    close(done[1]);
    if (read(done[0], &byte, 1) != 0)
        fail("read");
    ready(" %d:%d %d:%d", getpid(), fd, child, fd + 20);
}

static void *be_worker(void *tid)
{
    prctl(PR_SET_NAME, "worker");
    *(volatile pid_t *)tid = (pid_t)syscall(SYS_gettid);
    for (;;)
        pause();
    return NULL;
}

static void run_thread(void)
{
    static volatile pid_t tid;
    pthread_t thread;
    int fd;

    start_peer(0);
    fd = connect_to_peer();
    if (pthread_create(&thread, NULL, be_worker, (void *)&tid) != 0)
        fail("pthread_create");
    while (!tid)
        usleep(1000);
    ready(" %d %d", fd, tid);
}

static void run(const char *how, const char *argument)
{
    if (strcmp(how, "plain") == 0)
        run_plain(argument ? atoi(argument) : 1);
    else if (strcmp(how, "setuid") == 0 && argument)
        run_setuid((uid_t)atoi(argument));
    else if (strcmp(how, "renamed") == 0) {
        prctl(PR_SET_NAME, "worker");
        run_plain(1);
    } else if (strcmp(how, "elsewhere") == 0)
        run_elsewhere(argument ? atoi(argument) : 0);
    else if (strcmp(how, "pinned") == 0 && argument)
        run_pinned(argument);
    else if (strcmp(how, "shared") == 0 && argument)
        run_shared(argument);
    else if (strcmp(how, "ring-direct") == 0) {
        start_peer(0);
        ready(" %d", connect_by_ring());
    } else if (strcmp(how, "ring") == 0 || strcmp(how, "ring-empty") == 0) {
        make_ring();
        if (how[4] != '\0')
            make_empty_table();
        run_plain(1);
    } else if (strcmp(how, "in-flight") == 0)
        run_in_flight();
    else if (strcmp(how, "path") == 0)
        run_path();
    else if (strcmp(how, "thread-table") == 0 || strcmp(how, "main-table") == 0)
        run_thread_table(*how == 'm');
    else if (strcmp(how, "thread") == 0)
        run_thread();
    else if (strcmp(how, "move") == 0)
        run_move();
    else if (strcmp(how, "busy") == 0)
        run_busy();
    else
        usage("agent HOW [ARGUMENT]");
}

int main(int argc, char **argv)
{
    run(argc > 1 ? argv[1] : "plain", argc > 2 ? argv[2] : NULL);
    for (;;)
        pause();
}
