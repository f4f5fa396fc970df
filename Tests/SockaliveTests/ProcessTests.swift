import Testing

/// The built program against real processes. One at a time: each of them has children to wait for,
/// and a machine with two cores has none to spare.
@Suite(
    .serialized,
    .enabled(if: Machine.readsKeepaliveBack, "pidfd_getfd, which reads keepalive back, is missing or forbidden here"))
enum ProcessTests {}

/// The ways into a socket that this machine has.
let methods = Machine.injectsByPtrace ? ["pidfd", "ptrace"] : ["pidfd"]
