/*
 * The whole C face of sockalive.
 *
 * Something stands here only if Swift cannot say it: a system call without a
 * glibc wrapper, a macro or a variadic function that the importer skips, or the
 * injection itself (ptrace belongs to one thread and to exact register layouts).
 *
 * Every function answers a non-negative number, or -errno. None of them prints,
 * allocates global state or touches errno's value for the caller.
 */
#ifndef CSOCKALIVE_H
#define CSOCKALIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- descriptors.c: processes and descriptors by pidfd ------------------- */

/* pidfd_open(2), Linux 5.3. A close-on-exec descriptor, or -errno. */
int sockalive_pidfd_open(pid_t pid);

/* pidfd_getfd(2), Linux 5.6. A close-on-exec duplicate of the target's fd, or -errno. */
int sockalive_pidfd_getfd(int pidfd, int fd);

/* kcmp(2): 1 if both threads use one descriptor table, 0 if not, or -errno (ENOSYS: built without CONFIG_KCMP). */
int sockalive_shares_descriptors(pid_t thread, pid_t other);

/* getdents64(2): the next entries of an open folder, for as many threads as share it. Their size, 0, or -errno. */
ssize_t sockalive_getdents(int folder, void *entries, size_t size);

/* ---- netlink.c: sock_diag ---------------------------------------------------- */

/* setns(2): this thread moves into the network namespace that a descriptor refers to. 0, or -errno (EPERM). */
int sockalive_enter_network(int netns);

/*
 * A NETLINK_SOCK_DIAG socket of this thread's network namespace, in which it stays, whoever uses it
 * (netlink(7)). A close-on-exec descriptor, or -errno.
 */
int sockalive_diag_socket(void);

/* ---- remote_call.c: ptrace (x86-64; elsewhere every call answers -ENOSYS) -- */

/* A process of which one thread is held still. It belongs to the thread that held it. */
struct sockalive_tracee;

/* How far a call came; says what an errno means. */
enum sockalive_stage {
    SOCKALIVE_STAGE_NONE = 0,
    SOCKALIVE_STAGE_UNSUPPORTED,   /* this architecture, or this kind of target (x32 ...) */
    SOCKALIVE_STAGE_CHOOSE_THREAD, /* no thread to hold: -ESRCH gone or zombie, -EBUSY D state */
    SOCKALIVE_STAGE_SEIZE,         /* PTRACE_SEIZE was refused: permission, or already traced */
    SOCKALIVE_STAGE_STOP,          /* the thread did not stop in time */
    SOCKALIVE_STAGE_PREPARE,       /* registers, instruction or scratch memory were not to be had */
    SOCKALIVE_STAGE_DESCRIPTOR,    /* -ESTALE: fd is no longer that socket; nothing was called on it */
    SOCKALIVE_STAGE_CALL,          /* the remote call did not come to its end */
    SOCKALIVE_STAGE_GONE,          /* the target exited while it was held */
    SOCKALIVE_STAGE_SECCOMP,       /* a seccomp filter that could not be suspended */
};

struct sockalive_hold {
    enum sockalive_stage stage; /* where it failed; NONE if it did not */
    pid_t tid;                  /* the thread that was (to be) held */
    bool crash_safe;            /* the target recovers by itself should this process be killed */
    int64_t paused_ns;          /* from the stop to the release; filled in by release */
};

/* Instructions of the target's own: where they stand, and the bytes that were seen there. length 0: none. */
struct sockalive_code {
    uint64_t address;
    uint8_t length, bytes[15];
};

/* [start, end) in the target's memory, which may be a thread's stack. */
struct sockalive_stack {
    uint64_t start, end;
    bool main; /* the main thread's, as the kernel made it */
};

/* What was found out about a target before it is stopped. */
struct sockalive_target {
    pid_t pid, tid;                /* tid: the thread to hold */
    int fd;                        /* which must still be socket:[inode] */
    uint64_t inode;
    bool is_32_bit;
    struct sockalive_code call;    /* the system call instruction, with a way to `ret` behind it if there is one */
    bool returns;                  /* there is */
    unsigned skipped;              /* words that the way to `ret` takes off the stack */
    struct sockalive_code sigreturn; /* loads rt_sigreturn's number and calls */
    bool seccomp, shadow_stack;
    pid_t own_tid;                 /* tid in the target's own PID namespace; 0: unknown */
    uint64_t handled;              /* signals blocked or caught: bit n - 1 is signal n */
    int spare;                     /* a descriptor number far from those in use */
    const struct sockalive_stack *stacks; /* used by hold only */
    size_t stack_count;
};

/* process_vm_readv(2): how many bytes of the target's memory it read, or -errno. */
ssize_t sockalive_read_memory(pid_t tid, uint64_t address, void *bytes, size_t size);

/*
 * Holds one thread of a process still by PTRACE_SEIZE and PTRACE_INTERRUPT and makes it ready for remote
 * calls on its descriptor. The other threads run on.
 *
 * timeout_ms bounds every single wait (a thread in D state never stops).
 * 0 and *out, or -errno with info->stage saying where; then nothing is held.
 */
int sockalive_hold(const struct sockalive_target *target, int timeout_ms, struct sockalive_tracee **out,
                   struct sockalive_hold *info);

/* Puts everything back, lets the thread go, frees the handle. Never fails towards the target. */
void sockalive_release(struct sockalive_tracee *tracee, struct sockalive_hold *info);

/*
 * getsockopt(2), or setsockopt(2), inside the held process, on the descriptor given to hold.
 * The answer is the call's own (0, or the -errno that the target's kernel gave),
 * or -ESRCH (target gone) or -EIO (the call did not come to its end); info->stage tells
 * the two kinds apart: NONE means that the remote call itself was made.
 * length is at most SOCKALIVE_OPTION_MAX bytes.
 */
#define SOCKALIVE_OPTION_MAX 256
int sockalive_remote_option(struct sockalive_tracee *tracee, bool set, int level, int name, void *value,
                            uint32_t *length, struct sockalive_hold *info);

/* One integer option, to be read, or to be set and then read. */
struct sockalive_option {
    int level, name;
    bool set;
    int32_t value; /* in, with set: the new one; out: what was read */
    bool done;     /* false: make it alone, which says why it fails */
};

/*
 * All these options in their order, with a single stop of the target where that is possible: a stop
 * costs several times what a call does. 0, or -ESRCH or -EIO as above.
 */
#define SOCKALIVE_OPTIONS_MAX 5
int sockalive_remote_options(struct sockalive_tracee *tracee, struct sockalive_option *options, size_t count,
                             struct sockalive_hold *info);

/* ---- namespaces.c: a private world for the demo ---------------------------- */

/* The CLONE_NEW* bits of unshare(2). */
enum sockalive_namespaces {
    SOCKALIVE_NEW_MOUNT = 0x00020000,
    SOCKALIVE_NEW_USER = 0x10000000,
    SOCKALIVE_NEW_PID = 0x20000000,
    SOCKALIVE_NEW_NETWORK = 0x40000000,
};

/* unshare(2): 0, or -errno. */
int sockalive_unshare(int namespaces);

/* The kernel kills this process when the thread that started it ends. 0, or -errno. */
int sockalive_die_with_parent(void);

/* ---- self_test.c ------------------------------------------------------------ */

/* process_vm_readv(2) and process_vm_writev(2) on this very process: 0, or -errno. */
int sockalive_try_process_vm(void);

/* ---- stop requests: SIGINT, SIGTERM, SIGHUP ------------------------------- */

/* Installs handlers that only remember the signal; SIGPIPE is ignored. */
int sockalive_install_stop_handlers(void);

/* The first stop signal received, or 0. */
int sockalive_stop_signal(void);

/* From now on SIGHUP is no stop request, but ends a rest. 0, or -errno. */
int sockalive_hangup_wakes(void);

/* Whether SIGHUP came since it was last taken. */
bool sockalive_is_hung_up(void);
void sockalive_take_hangup(void);

/* Sleeps for so long, or until one of the three signals comes or has come. */
void sockalive_rest(int64_t nanoseconds);

#endif
