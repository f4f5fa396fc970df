/*
 * A victim of the torture programs: a command that prints "PID FD PORT" and answers every byte sent to PORT with one
 * byte, `!` if it was harmed.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct victim {
    char **command;
    /* The child, and the process that it names. */
    pid_t child, pid;
    int port, peer, status_fd, sockets;
};

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void pause_for(double length)
{
    for (double end = seconds() + length; seconds() < end;)
        if (end - seconds() > 0.002)
            usleep(500);
}

static inline double random_part(void)
{
    return (double)random() / RAND_MAX;
}

/* The number after "name" in the victim's status; -1 if the victim has no status any more. */
static inline long long status_number(const struct victim *victim, const char *name, int base)
{
    char text[4096];
    ssize_t length = pread(victim->status_fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    const char *line = strstr(text, name);
    return line ? strtoll(line + strlen(name), NULL, base) : -1;
}

static inline int count_sockets(const struct victim *victim)
{
    char path[64], link[64];
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", victim->pid, fd);
        ssize_t length = readlink(path, link, sizeof link);
        count += length > 7 && memcmp(link, "socket:", 7) == 0;
    }
    return count;
}

static inline bool echoes(const struct victim *victim)
{
    char byte = 'x';
    return send(victim->peer, &byte, 1, MSG_NOSIGNAL) == 1 && recv(victim->peer, &byte, 1, 0) == 1 && byte != '!';
}

/* Whether the victim is as before: it echoes, is not traced or stopped, blocks no signal, has no extra descriptor. */
static inline bool is_unharmed(const struct victim *victim)
{
    return echoes(victim) && echoes(victim) && status_number(victim, "\nTracerPid:\t", 10) == 0 &&
           status_number(victim, "\nSigBlk:\t", 16) == 0 && count_sockets(victim) == victim->sockets;
}

static inline void end_victim(struct victim *victim)
{
    close(victim->peer);
    close(victim->status_fd);
    if (victim->child > 0)
        kill(victim->child, SIGKILL), waitpid(victim->child, NULL, 0);
}

static inline void start_victim(struct victim *victim)
{
    int out[2], fd;
    char line[64] = "", path[64];
    if (pipe2(out, O_CLOEXEC) < 0 || (victim->child = fork()) < 0)
        exit(2);
    if (victim->child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        execvp(victim->command[0], victim->command);
        _exit(127);
    }
    close(out[1]);
    FILE *lines = fdopen(out[0], "r");
    if (!fgets(line, sizeof line, lines) || sscanf(line, "%d %d %d", &victim->pid, &fd, &victim->port) != 3)
        exit(2);
    fclose(lines);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)victim->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {5, 0};
    victim->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(victim->peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(victim->peer, (void *)&address, sizeof address) < 0 || !echoes(victim))
        exit(2);
    snprintf(path, sizeof path, "/proc/%d/status", victim->pid);
    victim->status_fd = open(path, O_RDONLY | O_CLOEXEC);
    victim->sockets = count_sockets(victim);
}

#endif
