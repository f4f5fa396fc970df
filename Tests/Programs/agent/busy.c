/* Lasting connections beside many short ones. */
#include "agent.h"

#include <pthread.h>

#define SHORT_ONES 20

static void *churn(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;

    for (;;) {
        int fd = connect_to_peer();
        usleep(20000 + (useconds_t)rand_r(&state) % 30000);
        close(fd);
    }
    return NULL;
}

void run_busy(void)
{
    int lasting[3] = {0};
    pthread_t thread;

    start_peer(0);
    /* Between the numbers of the short ones. */
    lasting[0] = connect_to_peer();
    for (size_t i = 0; i < SHORT_ONES; i++) {
        if (i == SHORT_ONES / 2)
            lasting[1] = connect_to_peer();
        if (pthread_create(&thread, NULL, churn, (void *)(i + 1)) != 0)
            fail("pthread_create");
    }
    lasting[2] = connect_to_peer();
    usleep(100000);
    ready(" %d %d %d", lasting[0], lasting[1], lasting[2]);
}
