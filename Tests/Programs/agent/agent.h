/* Shared by the files of this program. */
#ifndef AGENT_H
#define AGENT_H

#include "sessions.h"

/* Where the peer listens. */
extern struct sockaddr_in peer_address;

/* A process of its own that accepts connections and echoes their data; it ends with this one. The namespace of the
   network that it is in is a new one if ISOLATED. */
pid_t start_peer(int isolated);
int connect_to_peer(void);
/* A connection between two sockets of this process, in its own network namespace; and where one of them listened. */
struct sockaddr_in connect_to_self(void);
/* Moves the process, or the thread, to a new network namespace in which the loopback interface is up. */
void enter_new_network(void);

/* Prints "ready PID PORT" and what follows, once. */
void ready(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ring.c; the connection's number in the ring's table. */
int connect_by_ring(void);
void make_ring(void);
void make_empty_table(void);

/* tables.c */
void run_in_flight(void);
void run_path(void);
void run_thread_table(int is_in_main);
void run_move(void);

/* busy.c */
void run_busy(void);

#endif
