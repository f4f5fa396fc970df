/*
 * The kernel's constants by their names, from its own headers (uapi), for Swift to import. Below: macros that the
 * importer skips, and names that are younger than the headers of some machine on which this is built.
 */
#ifndef CSOCKALIVE_KERNEL_H
#define CSOCKALIVE_KERNEL_H

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/inet_diag.h>
#include <linux/net.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sock_diag.h>

/* AUDIT_ARCH_X86_64 is an expression that the importer skips. */
enum sockalive_audit_arch {
    SOCKALIVE_ARCH_X86_64 = AUDIT_ARCH_X86_64,
    SOCKALIVE_ARCH_I386 = AUDIT_ARCH_I386,
};

/* Linux 5.3. */
#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#define PTRACE_SYSCALL_INFO_ENTRY 1
#endif
/* IPPROTO_MPTCP, Linux 5.6. It is no macro in linux/in.h, which cannot be included beside netinet/in.h. */
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
