/*
 * Runs a command, and kills it with SIGKILL at its Nth stop: at the entry or at the exit of a system call of any thread.
 *
 *   kill-at N COMMAND [ARGUMENT]...
 *
 * Exit 0: it was killed. Exit 3: it ended before that. With N = 0 it prints the number of stops of the whole run, and
 * the number of the first one of bpf(2).
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* struct ptrace_syscall_info (ptrace(2), Linux 5.3): the operation, and at an entry the number. */
struct info {
    unsigned char operation, padding[3];
    unsigned architecture;
    unsigned long long instruction_pointer, stack_pointer, number, arguments[6];
};

int main(int argc, char **argv)
{
    int status;
    long wanted = argc > 2 ? atol(argv[1]) : -1, stops = 0, first = 0;

    if (wanted < 0)
        return 64;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return 1;
    /* Threads are traced, and forked processes are not: those die with their parent or end by themselves. */
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SYSCALL, child, 0, 0);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0)
            return 1;
        if (!WIFSTOPPED(status)) {
            if (thread != child)
                continue;
            if (wanted == 0)
                printf("%ld %ld\n", stops, first);
            return wanted == 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 3;
        }
        int number = WSTOPSIG(status), deliver = 0;
        if (number == (SIGTRAP | 0x80)) {
            struct info info = {0};
            stops++;
            ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof info, &info);
            if (!first && info.operation == 1 && info.number == SYS_bpf)
                first = stops;
            if (stops == wanted) {
                kill(child, SIGKILL);
                /* Each traced thread is waited for; the first one comes last. */
                do
                    thread = waitpid(-1, &status, __WALL);
                while (thread >= 0 && (thread != child || WIFSTOPPED(status)));
                return 0;
            }
        } else if (number != SIGTRAP && number != SIGSTOP) {
            deliver = number;
        }
        ptrace(PTRACE_SYSCALL, thread, 0, deliver);
    }
}
