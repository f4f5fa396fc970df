/*
 * The whole C interface of sockalive.
 *
 * It contains only what Swift cannot express: a system call without a glibc wrapper, a GNU extension, a macro or
 * variadic function that the importer skips, a signal handler, an instruction of the processor.
 *
 * Every function returns a non-negative number, or -errno. None prints. errno is not part of the interface.
 */
#ifndef CSOCKALIVE_H
#define CSOCKALIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel.h"

/* ---- bpf.c: cgroups, and programs of the kernel's BPF machine -------------- */

/* bpf(2): a close-on-exec descriptor, 0, or -errno. The part of the attributes that a command does not know is zero. */
int sockalive_bpf(int command, union bpf_attr *attributes);

/* openat2(2), Linux 5.6: no link is followed, and neither the folder nor its file system is left. -errno. */
int sockalive_open_beneath(int folder, const char *path, int flags);

/* fstatfs(2), which Swift does not import: the number of the file system's type (linux/magic.h), or -errno. */
int64_t sockalive_file_system(int fd);

/* ---- descriptors.c: pidfd, and other descriptors -------------------------- */

/* pidfd_open(2), Linux 5.3. A close-on-exec descriptor, or -errno. */
int sockalive_pidfd_open(pid_t pid);

/* The same for one thread, whose descriptor table may be its own (PIDFD_THREAD, Linux 6.9; before that, -EINVAL). */
int sockalive_pidfd_open_thread(pid_t tid);

/* pidfd_getfd(2), Linux 5.6. A close-on-exec duplicate of the target's fd, or -errno. */
int sockalive_pidfd_getfd(int pidfd, int fd);

/* kcmp(2): 1 if both threads use one descriptor table, 0 if not, or -errno (ENOSYS: no CONFIG_KCMP). */
int sockalive_shares_descriptors(pid_t thread, pid_t other);

/* getdents64(2): the next entries of an open folder. Several threads may share the folder. Their size, 0, or -errno. */
ssize_t sockalive_getdents(int folder, void *entries, size_t size);

/* close(2) for every descriptor from 3 on except one. */
void sockalive_close_all_but(int kept);

/*
 * Closes a descriptor that others may have closed already: a child has it too, and is killed. A task that exits does
 * not wait for SO_LINGER (net/ipv4/af_inet.c, inet_release: PF_EXITING); close(2) would. 0, or -errno: still open.
 */
int sockalive_close_by_exit(int fd);

/*
 * The name of the protocol of the socket that a /proc link leads to, such as "TCP" or "UNIX" (net/socket.c,
 * sockfs_xattr_get). Its length, or -errno.
 */
ssize_t sockalive_socket_protocol(const char *path, char *name, size_t size);

/* The inode of the network namespace of a socket (SIOCGSKNS, Linux 4.9; CAP_NET_ADMIN there). 0, or -errno. */
int sockalive_socket_namespace(int fd, uint64_t *inode);

/*
 * A NETLINK_SOCK_DIAG socket of this thread's network namespace. It stays in that namespace, no matter which thread
 * uses it (netlink(7)). A close-on-exec descriptor, or -errno.
 */
int sockalive_diag_socket(void);

/* ---- errno.c: the name of an error number --------------------------------- */

/* strerrorname_np(3), as "EPERM". NULL for an unknown number, or if the C library is older than glibc 2.32. */
const char *sockalive_errno_name(int error);

/* ---- process.c: this process and its threads ------------------------------ */

/* sched_getaffinity(2): the number of processors that the caller may use. */
int sockalive_processors(void);

/*
 * pthread_create(3) on another processor than the caller's. Afterwards the thread may run on all of the caller's
 * processors. Without this the kernel may queue it behind the caller, until the caller's time slice has ended (3 ms;
 * kernel/sched/fair.c, sysctl_sched_base_slice) or the queues are balanced. 0, or -errno.
 */
int sockalive_start_on_other_cpu(pthread_t *thread, void *(*run)(void *), void *argument);

/* gettid(2), which glibc has since 2.30. */
pid_t sockalive_thread_id(void);

/* setns(2): this thread enters the network namespace of a descriptor. 0, or -errno (EPERM). */
int sockalive_enter_network(int netns);

/* unshare(2) with CLONE_NEW* flags. 0, or -errno. */
int sockalive_unshare(int namespaces);

/* The kernel kills this process when the thread that started it ends. 0, or -errno. */
int sockalive_die_with_parent(void);

/* Children whose parent ends become children of this process (PR_SET_CHILD_SUBREAPER, Linux 3.4). 0, or -errno. */
int sockalive_adopt_orphans(void);

/* fork(2), which Swift does not offer. The child has only the calling thread. The child's PID, 0 in it, or -errno. */
pid_t sockalive_fork(void);

/*
 * Changes this process to the user, group and groups for good (real, effective and saved), without any capability. No
 * other process of that user may trace it or read its memory. 0, or -errno; after an error the process must end.
 */
int sockalive_become(uid_t uid, gid_t gid, const gid_t *groups, size_t count);

/* ---- signals.c: stop requests and job control ----------------------------- */

/* Installs handlers that only store the signal. SIGPIPE is ignored. */
int sockalive_install_stop_handlers(void);

/* From then on these signals end the process. */
void sockalive_restore_stop_handlers(void);

/* The first stop signal received, or 0. */
int sockalive_stop_signal(void);

/*
 * After so many seconds the process writes the message and exits with 1, whatever it waits for, if the kernel lets it.
 * The message must stay where it is. 0 seconds: not any more.
 */
void sockalive_exit_after(unsigned seconds, const char *message, size_t length);

/* That exit comes so many seconds from now at the earliest. */
void sockalive_postpone_exit(unsigned seconds);

/* From now on SIGHUP is no stop request, but ends a sleep. 0, or -errno. */
int sockalive_wake_on_hangup(void);

/* Whether SIGHUP came since sockalive_take_hangup. */
bool sockalive_is_hung_up(void);
void sockalive_take_hangup(void);

/*
 * Blocks SIGTSTP, SIGTTIN and SIGTTOU, so a terminal cannot stop this process. Returns the mask of those that the
 * calling thread blocked before, for sockalive_let_job_control_stop.
 */
uint64_t sockalive_hold_job_control(void);
void sockalive_let_job_control_stop(uint64_t mask);

/* Sleeps for this time, or until SIGINT, SIGTERM or SIGHUP comes or has come. */
void sockalive_sleep(int64_t nanoseconds);

/* ---- startup.c: before main() --------------------------------------------- */

/* Restores the environment that the constructor changed. This is the first call of main(). */
void sockalive_end_startup(void);

/* ---- tracing.c: one thread of another process ----------------------------- */

/* The general registers of PTRACE_GETREGS on x86-64, also for a 32-bit thread (struct user_regs_struct). */
struct sockalive_registers {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp,
        ss, fs_base, gs_base, ds, es, fs, gs;
};

/* The result of PTRACE_GET_SYSCALL_INFO at the entry of a system call (struct ptrace_syscall_info). */
struct sockalive_syscall_entry {
    uint8_t op, padding[3];
    uint32_t arch;
    uint64_t instruction_pointer, stack_pointer, number, arguments[6];
};

/* ptrace(2), which is variadic, for requests without a result. 0, or -errno. */
int sockalive_ptrace(int request, pid_t tid, uintptr_t address, uintptr_t data);

/* PTRACE_PEEKDATA: one word of a stopped thread's memory. 0, or -errno (EIO, EFAULT: not mapped). */
int sockalive_peek(pid_t tid, uintptr_t address, uint64_t *word);

/*
 * waitid(2) for a traced thread: its status as in si_status, 0 if it has not stopped, or -errno; -ECHILD if it has
 * ended. WNOWAIT leaves the signal of the stop in the kernel. If the signal were consumed and this process then killed,
 * a signal before its delivery would be lost (ptrace_stop returns exit_code).
 */
int sockalive_stop_status(pid_t tid);

/*
 * The same without __WALL, which waitid(2) refuses before Linux 4.7. It sees the main thread of a process, and of
 * other threads only if the kernel assumes __WALL for a traced one (4.7 and some older ones); else -ECHILD.
 */
int sockalive_process_stop_status(pid_t tid);

/* Whether waitid(2) takes __WALL: Linux 4.7. */
bool sockalive_waits_for_threads(void);

/* wait4(2), which takes __WALL on every kernel, but consumes the status. Status, 0, or -errno as above. */
int sockalive_take_status(pid_t tid);

/* The error of an rseq(2) call that registers nothing: ENOSYS if the kernel lacks it (Linux 4.18), else another. */
int sockalive_rseq_error(void);

/*
 * Why this process may not suspend a target's seccomp filter, tried on a child: EPERM; EIO or EINVAL if the kernel
 * cannot (before Linux 4.3, or without CONFIG_CHECKPOINT_RESTORE); 0 if it may.
 */
int sockalive_suspension_error(void);

/* CPUID leaf 0xd: the end of a feature's part of an XSAVE area, in bytes. 0: the processor lacks the feature. */
uint32_t sockalive_xsave_end(unsigned feature);

#endif
