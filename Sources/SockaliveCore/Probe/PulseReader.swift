/// Looks at connections while they are asked.
struct PulseReader {
    let reach: SocketReach

    func pulse(of socket: DiscoveredSocket) throws(SocketFailure) -> SocketReach.Reached<Pulse> {
        try reach.apply(ProbeLook(), to: socket)
    }

    /// How long to leave the connections alone when their probes left so many milliseconds ago.
    /// A look by ptrace stops the target, so there are few of them.
    func gap(after elapsed: Double) -> Double {
        reach.method == .ptrace ? min(500, max(20, elapsed)) : min(20, max(0.3, elapsed / 5))
    }
}
