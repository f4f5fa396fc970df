/// Launchers that make a machine look like another.
enum Conditions {
    /// An older kernel, or a stricter one: each rule answers a system call with an error.
    static func denying(_ rules: String...) -> [String] {
        [TestProgram.path("deny-syscalls")] + rules + ["--"]
    }

    /// Linux before 5.3 has neither call.
    static let withoutPidfd = denying("pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS")

    /// Root, with what reading and reaching take and nothing else, as in a container of few rights.
    static let withSmallestRights = [
        "setpriv", "--bounding-set=-all,+sys_ptrace,+dac_read_search", "--inh-caps=-all",
    ]

    /// Nobody in particular: not the victims' user, no capability.
    static let asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]
}
