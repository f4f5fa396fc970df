/*
 * Stop requests. A handler in Swift would have to be async-signal-safe, which the
 * language cannot promise; here it is one store.
 */
#include "CSockalive.h"

#include <errno.h>
#include <signal.h>

static volatile sig_atomic_t received;

static void remember(int signal_number)
{
    received = signal_number;
}

int sockalive_install_stop_handlers(void)
{
    static const int stop[] = {SIGINT, SIGTERM, SIGHUP};
    /* No SA_RESTART: a sleep between two rounds is to end at once. */
    struct sigaction action = {.sa_handler = remember};

    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof stop / sizeof *stop; i++) {
        if (sigaction(stop[i], &action, NULL) < 0)
            return -errno;
    }
    action.sa_handler = SIG_IGN;
    return sigaction(SIGPIPE, &action, NULL) < 0 ? -errno : 0;
}

int sockalive_stop_signal(void)
{
    return received;
}
