/*
 * The peer of the victim's sessions: it sends data, and checks the echo.
 *
 *   echo-peer connect|listen ADDRESS PORT [COUNT]
 *
 * Standard output, a line each:
 *   listening PORT             listen only
 *   connected COUNT            every session is established
 *   failed CALL: REASON
 *
 * Standard input, a command a line, and its answer:
 *   echo MILLISECONDS          sends a token on each session; then a line for each, in order:
 *                              "echoed N", "silent N" (no echo in time) or "broken N: REASON"
 *   stream                     from now on sends the next token after each echo
 *   stop                       "streamed SENT RECEIVED": tokens sent, and tokens that came back complete and in order
 * At end of input it closes every session and ends.
 */
#include "sessions.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>

#define TOKEN 32

/* How long "stop" waits for tokens in flight. */
#define PATIENCE_MS 5000

static int sessions[SESSIONS_MAX];
static int count;

struct exchange {
    char sent[TOKEN], received[TOKEN];
    size_t length; /* of received */
    int pending;
};

static struct exchange exchanges[SESSIONS_MAX];
static uint64_t tokens_sent, tokens_received;

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Returns 0 or an errno. */
static int send_token(int i)
{
    struct exchange *exchange = &exchanges[i];

    snprintf(exchange->sent, TOKEN, "%010d %018" PRIu64 "\n", i, ++tokens_sent);
    exchange->length = 0;
    exchange->pending = 1;
    return send(sessions[i], exchange->sent, TOKEN, MSG_NOSIGNAL) == TOKEN ? 0 : errno;
}

/* Returns 0 while the token is incomplete, 1 when it is complete, or -errno. */
static int receive_token(int i)
{
    struct exchange *exchange = &exchanges[i];
    ssize_t n = recv(sessions[i], exchange->received + exchange->length, TOKEN - exchange->length, MSG_DONTWAIT);

    if (n <= 0)
        return n == 0 ? -ECONNRESET : errno == EAGAIN ? 0 : -errno;
    exchange->length += (size_t)n;
    if (exchange->length < TOKEN)
        return 0;
    exchange->pending = 0;
    return memcmp(exchange->sent, exchange->received, TOKEN) == 0 ? 1 : -EBADMSG;
}

/* Waits for the token of session i until the deadline. */
static void answer_echo(int i, int error, int64_t deadline)
{
    struct pollfd polled = {.fd = sessions[i], .events = POLLIN};
    int result = -error;

    while (result == 0) {
        int64_t left = deadline - now_ms();
        if (poll(&polled, 1, left > 0 ? (int)left : 0) <= 0)
            break;
        result = receive_token(i);
    }
    if (result > 0)
        say("echoed %d", i);
    else if (result == 0)
        say("silent %d", i);
    else
        say("broken %d: %s", i, strerror(-result));
}

static void echo(int milliseconds)
{
    static int errors[SESSIONS_MAX];

    for (int i = 0; i < count; i++)
        errors[i] = send_token(i);
    int64_t deadline = now_ms() + milliseconds;
    for (int i = 0; i < count; i++)
        answer_echo(i, errors[i], deadline);
}

/* One turn of the stream over every session that is readable. */
static void turn(struct pollfd *polled, int again)
{
    for (int i = 0; i < count; i++) {
        if (!exchanges[i].pending || !polled[i].revents)
            continue;
        int result = receive_token(i);
        if (result < 0) {
            say("failed stream: session %d: %s", i, strerror(-result));
            exit(1);
        }
        tokens_received += result;
        if (result > 0 && again)
            send_token(i);
    }
}

static int pending(void)
{
    int sum = 0;

    for (int i = 0; i < count; i++)
        sum += exchanges[i].pending;
    return sum;
}

/* Sends and receives until standard input has the next command. */
static void stream(void)
{
    static struct pollfd polled[SESSIONS_MAX + 1];

    tokens_sent = tokens_received = 0;
    for (int i = 0; i < count; i++) {
        polled[i] = (struct pollfd){.fd = sessions[i], .events = POLLIN};
        send_token(i);
    }
    polled[count] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    while (!polled[count].revents) {
        if (poll(polled, (nfds_t)count + 1, -1) < 0)
            fail("poll");
        turn(polled, 1);
    }
    for (int64_t deadline = now_ms() + PATIENCE_MS; pending() > 0 && now_ms() < deadline;) {
        poll(polled, (nfds_t)count, 100);
        turn(polled, 0);
    }
}

int main(int argc, char **argv)
{
    char line[64];

    count = open_sessions(argc - 1, argv + 1, sessions);
    if (count < 0)
        usage("echo-peer connect|listen ADDRESS PORT [COUNT]");
    say("connected %d", count);
    /* stream() polls standard input, so stdio must not buffer a line. */
    setvbuf(stdin, NULL, _IONBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "echo ", 5) == 0)
            echo(atoi(line + 5));
        else if (strcmp(line, "stream\n") == 0)
            stream();
        else if (strcmp(line, "stop\n") == 0)
            say("streamed %" PRIu64 " %" PRIu64, tokens_sent, tokens_received);
        else
            usage("echo MILLISECONDS | stream | stop");
    }
    return 0;
}
