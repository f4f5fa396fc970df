/*
 * The kernel's constants by name, imported into Swift from the kernel's own headers (uapi). Below are macros that the
 * importer skips, and names that are newer than the headers of some build machines.
 */
#ifndef CSOCKALIVE_KERNEL_H
#define CSOCKALIVE_KERNEL_H

#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/inet_diag.h>
#include <linux/magic.h>
#include <linux/net.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sock_diag.h>

/* The importer skips AUDIT_ARCH_X86_64, because it is an expression. */
enum sockalive_audit_arch {
    SOCKALIVE_ARCH_X86_64 = AUDIT_ARCH_X86_64,
    SOCKALIVE_ARCH_I386 = AUDIT_ARCH_I386,
};

/* rseq(2), Linux 4.18. Only the ptrace method asks for it. */
#if defined(__x86_64__)
#define SOCKALIVE_SYS_RSEQ 334
#else
/* That method is compiled on other architectures, too, and does nothing there. These names are x86-64's alone. */
#define PTRACE_GETREGS 12
#define PTRACE_SETREGS 13
#define FP_XSTATE_MAGIC1 0x46505853U
#define FP_XSTATE_MAGIC2 0x46505845U
#endif
/* Linux 5.3. */
#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#define PTRACE_SYSCALL_INFO_ENTRY 1
#endif
/* IPPROTO_MPTCP, Linux 5.6. linux/in.h has it as an enum, and cannot be included together with netinet/in.h. */
enum { SOCKALIVE_IPPROTO_MPTCP = 262 };
/* Linux 5.13. */
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
/* Linux 6.4. */
#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211
#endif

#endif
