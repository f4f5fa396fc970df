/*
 * Stop requests. A signal handler must be async-signal-safe, which Swift cannot guarantee. In C it is one store.
 */
#include "CSockalive.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t received;
static volatile sig_atomic_t hung_up;

static void remember(int signal_number)
{
    received = signal_number;
}

static void remember_hangup(int signal_number)
{
    (void)signal_number;
    hung_up = 1;
}

int sockalive_install_stop_handlers(void)
{
    static const int stop[] = {SIGINT, SIGTERM, SIGHUP};
    /* No SA_RESTART: a signal must end a sleep between two rounds at once. */
    struct sigaction action = {.sa_handler = remember};

    sigset_t stops;

    sigemptyset(&action.sa_mask);
    sigemptyset(&stops);
    for (unsigned i = 0; i < sizeof stop / sizeof *stop; i++) {
        if (sigaction(stop[i], &action, NULL) < 0)
            return -errno;
        sigaddset(&stops, stop[i]);
    }
    /* The parent may have blocked these signals, and a mask survives execve(2). */
    sigprocmask(SIG_UNBLOCK, &stops, NULL);
    action.sa_handler = SIG_IGN;
    return sigaction(SIGPIPE, &action, NULL) < 0 ? -errno : 0;
}

void sockalive_restore_stop_handlers(void)
{
    static const int stop[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = SIG_DFL};

    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof stop / sizeof *stop; i++)
        sigaction(stop[i], &action, NULL);
}

static const char *last_words;
static size_t last_words_length;
static struct timespec deadline;
static atomic_bool is_armed;
/* Seconds of the same clock. */
static _Atomic time_t not_before;

/*
 * A thread, because a wait for a file server ends only by a signal that kills (wait_event_killable): no handler runs
 * before. _exit(2) sends that signal to the other threads.
 */
static void *end_at_deadline(void *unused)
{
    (void)unused;
    time_t earliest;

    do {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) == EINTR)
            continue;
        earliest = not_before;
    } while (earliest > deadline.tv_sec && (deadline.tv_sec = earliest));
    if (!is_armed)
        return NULL;
    /* A reader that has stopped must not keep the process. */
    struct pollfd reader = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&reader, 1, 200) > 0 && write(STDERR_FILENO, last_words, last_words_length) < 0)
        _exit(1);
    _exit(1);
}

void sockalive_postpone_exit(unsigned seconds)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    not_before = now.tv_sec + seconds;
}

void sockalive_exit_after(unsigned seconds, const char *message, size_t length)
{
    pthread_t thread;
    sigset_t all, before;

    is_armed = seconds != 0;
    if (seconds == 0)
        return;
    last_words = message;
    last_words_length = length;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += seconds;
    /* Signals are for the main thread, which they wake. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, end_at_deadline, NULL) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int sockalive_stop_signal(void)
{
    return received;
}

int sockalive_wake_on_hangup(void)
{
    struct sigaction action = {.sa_handler = remember_hangup};

    sigemptyset(&action.sa_mask);
    return sigaction(SIGHUP, &action, NULL) < 0 ? -errno : 0;
}

bool sockalive_is_hung_up(void)
{
    return hung_up;
}

void sockalive_take_hangup(void)
{
    hung_up = 0;
}

/* The signals by which a terminal stops its foreground or background processes. */
static const int job_control[] = {SIGTSTP, SIGTTIN, SIGTTOU};

uint64_t sockalive_hold_job_control(void)
{
    sigset_t stops, before;
    uint64_t mask = 0;

    sigemptyset(&stops);
    for (unsigned i = 0; i < sizeof job_control / sizeof *job_control; i++)
        sigaddset(&stops, job_control[i]);
    pthread_sigmask(SIG_BLOCK, &stops, &before);
    for (unsigned i = 0; i < sizeof job_control / sizeof *job_control; i++)
        if (sigismember(&before, job_control[i]))
            mask |= UINT64_C(1) << (job_control[i] - 1);
    return mask;
}

void sockalive_let_job_control_stop(uint64_t mask)
{
    sigset_t stops;

    sigemptyset(&stops);
    for (unsigned i = 0; i < sizeof job_control / sizeof *job_control; i++)
        if (!(mask >> (job_control[i] - 1) & 1))
            sigaddset(&stops, job_control[i]);
    pthread_sigmask(SIG_UNBLOCK, &stops, NULL);
}

/* The signals are blocked between check and sleep, so none is lost there. ppoll(2) unblocks them atomically. */
void sockalive_sleep(int64_t nanoseconds)
{
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    sigset_t watched, before;

    sigemptyset(&watched);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGHUP);
    sigprocmask(SIG_BLOCK, &watched, &before);
    if (!received && !hung_up)
        ppoll(NULL, 0, &time, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}
