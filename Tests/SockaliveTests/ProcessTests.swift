import Testing

/// The built program against real processes. The tests run one at a time: each waits for its children, and a machine
/// with two cores has no core to spare.
@Suite(
    .serialized,
    .enabled(if: Machine.readsKeepaliveBack, "pidfd_getfd, which reads keepalive back, is missing or forbidden here"))
enum ProcessTests {}

/// Tests whose programs wait for packets most of the time. They run one at a time beside ``ProcessTests``.
@Suite(
    .serialized,
    .enabled(if: Machine.readsKeepaliveBack, "pidfd_getfd, which reads keepalive back, is missing or forbidden here"))
enum PeerTests {}

/// The methods that this machine supports.
let methods = Machine.injectsByPtrace ? ["pidfd", "ptrace"] : ["pidfd"]
