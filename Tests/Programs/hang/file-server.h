/* A file system (FUSE) whose server stops answering on command, as a dead file server does. */
#ifndef FILE_SERVER_H
#define FILE_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

/* Its files. Opening, reading and closing them waits for the server. */
#define LOG_FILE "log"
/* Executable: the file that start_file_server was given. */
#define PROGRAM_FILE "beremote"
/* PAGES_SIZE bytes, none of them code. */
#define PAGES_FILE "pages"
#define PAGES_SIZE (4UL << 20)

/*
 * Mounts the file system and starts its server. With has_namespace, only the server's own mount namespace has it. The
 * server ends with its parent. Nobody else has its descriptor, so the kernel aborts all requests then.
 */
pid_t start_file_server(const char *folder, const char *program, bool has_namespace);

/* From now on it takes requests and answers none. */
void let_file_server_die(void);

/* How many requests it has left without an answer. */
int unanswered_requests(void);

#endif
