import Glibc

/// How many files this process may have open (RLIMIT_NOFILE, getrlimit(2)). Each process that matches is held by a
/// descriptor, and the usual limit of 1,024 is for programs that use select(2).
public enum OpenFiles {
    /// What a run needs besides, with room to spare.
    private static let reserve = 32

    /// Raises the limit as far as this process may. Where that is refused, it stays.
    public static func raiseLimit() {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
    }

    /// Whether so high a number leaves no room for the rest: the lowest free number is given first.
    static func areUsedUp(at descriptor: Int32) -> Bool {
        Int(descriptor) >= sysconf(Int32(_SC_OPEN_MAX)) - reserve
    }
}
