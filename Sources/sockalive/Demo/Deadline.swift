import Glibc

/// A moment on the monotonic clock.
struct Deadline {
    let end: ContinuousClock.Instant

    init(seconds: Int) {
        end = .now + .seconds(seconds)
    }

    /// Milliseconds until then, never below zero, as `poll` takes them.
    var milliseconds: Int32 {
        Int32(max(0, (end - .now).seconds * 1000).rounded(.up))
    }
}

extension Duration {
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}

/// Waits until `descriptor` can be read or has ended; false when `deadline` passed first (nil: never).
///
/// The corresponding C function is `poll`.
func waitReadable(_ descriptor: Int32, until deadline: Deadline?) -> Bool {
    !readable([descriptor], until: deadline).isEmpty
}

/// Those of `descriptors` that can be read or have ended, none when `deadline` passed first.
func readable(_ descriptors: [Int32], until deadline: Deadline?) -> [Int32] {
    var polls = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    while true {
        let count = poll(&polls, nfds_t(polls.count), deadline?.milliseconds ?? -1)
        if count < 0 && errno == EINTR { continue }
        return polls.filter { $0.revents != 0 }.map(\.fd)
    }
}
