/*
 * Traces a process, as a debugger would, and lets it run.
 *
 *   hold-traced PID
 *
 * Prints "tracing PID", or "failed ptrace: REASON". Detaches and ends at the end of standard input.
 */
#include "sessions.h"

#include <sys/ptrace.h>

int main(int argc, char **argv)
{
    char byte;

    if (argc != 2)
        usage("hold-traced PID");
    if (ptrace(PTRACE_SEIZE, atoi(argv[1]), 0, 0) < 0)
        fail("ptrace");
    say("tracing %s", argv[1]);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return 0;
}
