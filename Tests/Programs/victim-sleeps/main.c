/*
 * Blocks in one system call until it is woken on purpose, and reports any other return of the call.
 *
 *   victim-sleeps CALL     prints "PID FD"; a line on standard input wakes it; prints "ok" or the error
 *   victim-sleeps          prints the calls that it knows
 *
 * FD is one end of a TCP connection; the process has the other end, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 1500

/* Shared with the child that wakes it. */
static volatile struct { double woken_at; int futex; } *shared;
static int pipe_fds[2], local_ends[2], listener, near_end, far_end, epoll, semaphores, queue;
static struct sockaddr_in address = {.sin_family = AF_INET};
static volatile int handled;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void handle(int number)
{
    (void)number;
    handled = handled + 1;
}

/* ---- the calls: each returns its result, and leaves errno -------------------- */

static long read_socket(void) { char byte; return read(near_end, &byte, 1); }
static long read_pipe(void) { char byte; return read(pipe_fds[0], &byte, 1); }
static long recv_timeout(void) { char byte; return recv(near_end, &byte, 1, 0); }
static long accept_call(void) { return accept(listener, NULL, NULL) >= 0 ? 1 : -1; }
static long poll_call(void) { return poll(&(struct pollfd){near_end, POLLIN, 0}, 1, -1); }
static long poll_timed(void) { return poll(&(struct pollfd){near_end, POLLIN, 0}, 1, 60000); }
static long ppoll_call(void) { return ppoll(&(struct pollfd){near_end, POLLIN, 0}, 1, NULL, NULL); }
static long select_call(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(near_end, &set);
    return select(near_end + 1, &set, NULL, NULL, NULL);
}
static long epoll_call(void) { struct epoll_event event; return epoll_wait(epoll, &event, 1, -1); }
static long epoll_timed(void) { struct epoll_event event; return epoll_wait(epoll, &event, 1, 60000); }
/* The mask of the call is another one than the thread's. */
static long epoll_pwait_call(void)
{
    struct epoll_event event;
    sigset_t all;
    sigfillset(&all);
    return epoll_pwait(epoll, &event, 1, -1, &all);
}
static long pselect_call(void)
{
    fd_set set;
    sigset_t all;
    sigfillset(&all);
    FD_ZERO(&set);
    FD_SET(near_end, &set);
    return pselect(near_end + 1, &set, NULL, NULL, NULL, &all);
}
static long ppoll_masked(void)
{
    sigset_t all;
    sigfillset(&all);
    return ppoll(&(struct pollfd){near_end, POLLIN, 0}, 1, NULL, &all);
}
static long futex_call(void) { return syscall(SYS_futex, &shared->futex, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 1 : -1; }
static long semop_call(void) { return semop(semaphores, &(struct sembuf){0, -1, 0}, 1) == 0 ? 1 : -1; }
static long semtimedop_call(void)
{
    return semtimedop(semaphores, &(struct sembuf){0, -1, 0}, 1, &(struct timespec){60, 0}) == 0 ? 1 : -1;
}
static long msgrcv_call(void)
{
    struct { long type; char byte; } message;
    return msgrcv(queue, &message, 1, 0, 0);
}
static long sigtimedwait_call(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return sigtimedwait(&set, NULL, &(struct timespec){60, 0}) == SIGUSR2 ? 1 : -1;
}
/* The rest of these timeouts cannot be written back. */
static const struct timespec read_only = {60, 0};
static long ppoll_read_only(void)
{
    return syscall(SYS_ppoll, &(struct pollfd){near_end, POLLIN, 0}, 1, &read_only, NULL, 8);
}
static long pselect_read_only(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(near_end, &set);
    return syscall(SYS_pselect6, near_end + 1, &set, NULL, NULL, &read_only, NULL);
}
static long select_sticky(void)
{
    struct timeval timeout = {60, 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(near_end, &set);
    personality(PER_LINUX | STICKY_TIMEOUTS);
#ifdef SYS__newselect
    return syscall(SYS__newselect, near_end + 1, &set, NULL, NULL, &timeout);
#elif defined SYS_select
    return syscall(SYS_select, near_end + 1, &set, NULL, NULL, &timeout);
#else
    return select(near_end + 1, &set, NULL, NULL, &timeout); /* by pselect6 (aarch64) */
#endif
}
static long preadv2_timeout(void)
{
    char byte;
    return preadv2(near_end, &(struct iovec){&byte, 1}, 1, -1, 0);
}
static long recvmmsg_timed(void)
{
    char byte;
    struct iovec part = {&byte, 1};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    return recvmmsg(near_end, &message, 1, 0, &(struct timespec){60, 0});
}
/* The buffer of a local socket has a size that does not change, unlike that of a TCP connection. */
static long send_timeout(void)
{
    static char bytes[4096];
    while (send(local_ends[0], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
    return send(local_ends[0], bytes, 1, 0);
}
/* An io_uring with one request, which is done when the socket has data. */
static long io_uring_timed(void)
{
#ifdef IORING_ENTER_EXT_ARG
    struct io_uring_params parameters = {0};
    struct __kernel_timespec timeout = {.tv_sec = 60};
    struct io_uring_getevents_arg argument = {.ts = (uintptr_t)&timeout};
    int ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
    if (ring < 0)
        return -1;
    char *queue = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *request = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    if (queue == MAP_FAILED || request == MAP_FAILED)
        return -1;
    *request = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = near_end, .poll32_events = POLLIN};
    ((uint32_t *)(queue + parameters.sq_off.array))[0] = 0;
    *(volatile uint32_t *)(queue + parameters.sq_off.tail) = 1;
    if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
        return -1;
    return syscall(
        SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument) == 0
        ? 1 : -1;
#else
    return -1;
#endif
}
/* These three end with EINTR, and only by the handler. */
static long pause_call(void) { return pause() < 0 && errno == EINTR && handled == 1 ? 1 : -1; }
static long sigsuspend_call(void)
{
    sigset_t none, blocked;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    return sigsuspend(&none) < 0 && errno == EINTR && handled == 1 ? 1 : -1;
}
static long epoll_handler(void) { return epoll_call() < 0 && errno == EINTR && handled == 1 ? 1 : -1; }
/* No call at all. */
static long compute(void)
{
    while (shared->woken_at == 0)
        continue;
    return 1;
}
static long waitpid_call(void) { return waitpid(-1, NULL, 0) > 0 ? 1 : -1; }

/* These end by their own timeout, and not earlier. */
static long nanosleep_call(void)
{
    return nanosleep(&(struct timespec){TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000000}, NULL) == 0 ? 0 : -1;
}
static long poll_end(void) { return poll(&(struct pollfd){near_end, POLLIN, 0}, 1, TIMEOUT_MS); }
static long epoll_end(void) { struct epoll_event event; return epoll_wait(epoll, &event, 1, TIMEOUT_MS); }
static long recv_end(void) { char byte; return recv(near_end, &byte, 1, 0) < 0 && errno == EAGAIN ? 0 : -1; }
static long select_end(void)
{
    struct timeval timeout = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000};
    return select(0, NULL, NULL, NULL, &timeout);
}
static long futex_end(void)
{
    struct timespec timeout = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000000};
    return syscall(SYS_futex, &shared->futex, FUTEX_WAIT, 0, &timeout, NULL, 0) < 0 && errno == ETIMEDOUT ? 0 : -1;
}
static long sigtimedwait_end(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct timespec timeout = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000000};
    return sigtimedwait(&set, NULL, &timeout) < 0 && errno == EAGAIN ? 0 : -1;
}

/* ---- the ways to wake them -------------------------------------------------- */

static void wake_socket(pid_t sleeper) { (void)sleeper; (void)!write(far_end, "x", 1); }
static void wake_sender(pid_t sleeper)
{
    static char bytes[4096];
    (void)sleeper;
    while (read(local_ends[1], bytes, sizeof bytes) > 0)
        continue;
}
static void wake_pipe(pid_t sleeper) { (void)sleeper; (void)!write(pipe_fds[1], "x", 1); }
static void wake_accept(pid_t sleeper)
{
    (void)sleeper;
    connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&address, sizeof address);
    sleep(1);
}
static void wake_futex(pid_t sleeper) { (void)sleeper; syscall(SYS_futex, &shared->futex, FUTEX_WAKE, 1, NULL, NULL, 0); }
static void wake_semop(pid_t sleeper) { (void)sleeper; semop(semaphores, &(struct sembuf){0, 1, 0}, 1); }
static void wake_msgrcv(pid_t sleeper)
{
    (void)sleeper;
    struct { long type; char byte; } message = {1, 'x'};
    msgsnd(queue, &message, 1, 0);
}
static void wake_signal(pid_t sleeper) { kill(sleeper, SIGUSR2); }
static void wake_exit(pid_t sleeper) { (void)sleeper; }

static const struct {
    const char *name;
    long (*call)(void);
    void (*wake)(pid_t sleeper); /* NULL: ends by its timeout */
} calls[] = {
    {"read-socket", read_socket, wake_socket}, {"read-pipe", read_pipe, wake_pipe},
    {"recv-timeout", recv_timeout, wake_socket}, {"accept-timeout", accept_call, wake_accept},
    {"preadv2-timeout", preadv2_timeout, wake_socket}, {"recvmmsg-timeout", recvmmsg_timed, wake_socket},
    {"send-timeout", send_timeout, wake_sender}, {"io_uring-timeout", io_uring_timed, wake_socket},
    {"ppoll-read-only", ppoll_read_only, wake_socket}, {"pselect-read-only", pselect_read_only, wake_socket},
    {"select-sticky", select_sticky, wake_socket}, {"accept", accept_call, wake_accept}, {"poll", poll_call, wake_socket},
    {"poll-timeout", poll_timed, wake_socket}, {"ppoll", ppoll_call, wake_socket},
    {"ppoll-masked", ppoll_masked, wake_socket}, {"pselect-masked", pselect_call, wake_socket}, {"select", select_call, wake_socket},
    {"epoll_wait", epoll_call, wake_socket}, {"epoll_wait-timeout", epoll_timed, wake_socket},
    {"epoll_pwait", epoll_pwait_call, wake_socket}, {"futex", futex_call, wake_futex}, {"semop", semop_call, wake_semop},
    {"semtimedop", semtimedop_call, wake_semop}, {"msgrcv", msgrcv_call, wake_msgrcv},
    {"sigtimedwait", sigtimedwait_call, wake_signal}, {"pause", pause_call, wake_signal},
    {"sigsuspend", sigsuspend_call, wake_signal}, {"epoll_wait-handler", epoll_handler, wake_signal},
    {"waitpid", waitpid_call, wake_exit}, {"compute", compute, wake_exit}, {"nanosleep", nanosleep_call, NULL}, {"poll-end", poll_end, NULL},
    {"epoll_wait-end", epoll_end, NULL}, {"recv-timeout-end", recv_end, NULL}, {"select-end", select_end, NULL},
    {"futex-end", futex_end, NULL}, {"sigtimedwait-end", sigtimedwait_end, NULL},
};

static void set_up(const char *name)
{
    socklen_t length = sizeof address;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (void *)&address, sizeof address);
    listen(listener, 4);
    getsockname(listener, (void *)&address, &length);
    near_end = socket(AF_INET, SOCK_STREAM, 0);
    connect(near_end, (void *)&address, sizeof address);
    far_end = accept(listener, NULL, NULL);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, near_end, &(struct epoll_event){.events = EPOLLIN});
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    if (pipe(pipe_fds) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, local_ends) < 0 || far_end < 0 || semaphores < 0 || queue < 0)
        exit(2);
    if (strncmp(name, "recv-timeout", 12) == 0) {
        struct timeval timeout = {60, 0};
        if (strstr(name, "-end"))
            timeout = (struct timeval){TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000};
        setsockopt(near_end, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    } else if (strstr(name, "-timeout")) {
        struct timeval timeout = {60, 0};
        setsockopt(near_end, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(local_ends[0], SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    }
    sigaction(SIGUSR2, &(struct sigaction){.sa_handler = handle}, NULL);
}

int main(int argc, char **argv)
{
    size_t which = 0;
    while (argc > 1 && which < sizeof calls / sizeof *calls && strcmp(argv[1], calls[which].name) != 0)
        which++;
    if (argc < 2 || which == sizeof calls / sizeof *calls) {
        for (which = 0; which < sizeof calls / sizeof *calls; which++)
            puts(calls[which].name);
        return argc < 2 ? 0 : 2;
    }
    set_up(calls[which].name);
    pid_t sleeper = getpid(), waker = fork();
    if (waker == 0) {
        char line[16];
        close(near_end);
        if (!fgets(line, sizeof line, stdin))
            kill(sleeper, SIGKILL);
        shared->woken_at = seconds();
        if (calls[which].wake)
            calls[which].wake(sleeper);
        _exit(0);
    }
    printf("%d %d\n", getpid(), near_end);
    fflush(stdout);
    double start = seconds();
    errno = 0;
    sigset_t before, after;
    sigprocmask(SIG_SETMASK, NULL, &before);
    long result = calls[which].call();
    int error = errno;
    sigprocmask(SIG_SETMASK, NULL, &after);
    /* The calls that block SIGUSR2 leave that so. */
    sigdelset(&before, SIGUSR2);
    sigdelset(&after, SIGUSR2);
    double end = seconds();
    semctl(semaphores, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, NULL);
    if (memcmp(&before, &after, 8) != 0) /* 64 signals */
        printf("wrong: %s changed the signal mask\n", argv[1]);
    else if (!calls[which].wake && result == 0 && end - start >= TIMEOUT_MS / 1000.0)
        printf("ok %.3f\n", end - start);
    else if (calls[which].wake && result == 1 && shared->woken_at != 0 && end >= shared->woken_at)
        printf("ok\n");
    else
        printf("wrong: %s returned %ld, errno %d, after %.3f s\n", argv[1], result, error, end - start);
    fflush(stdout);
    kill(waker, SIGKILL);
    return 0;
}
