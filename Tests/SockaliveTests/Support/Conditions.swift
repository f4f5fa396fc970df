/// Launchers that simulate another machine.
enum Conditions {
    /// An older or stricter kernel: each rule makes a system call fail with an error.
    static func denying(_ rules: String...) -> [String] {
        [TestProgram.path("deny-syscalls")] + rules + ["--"]
    }

    /// Linux before 5.3 has neither call.
    static let withoutPidfd = denying("pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS")

    /// Root with only the capabilities to read and to access processes, as in a restricted container.
    static let withSmallestRights = [
        "setpriv", "--bounding-set=-all,+sys_ptrace,+dac_read_search", "--inh-caps=-all",
    ]

    /// A user without capabilities who is not the victims' user.
    static let asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]
}
