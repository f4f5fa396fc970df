/// A network namespace with nothing in it but a loopback.
final class NetworkRoom {
    private let keeper: Child

    init() throws {
        keeper = try Child(
            ["unshare"] + Machine.privateUser + ["--net", "sh", "-c", "ip link set lo up && echo open && exec cat"])
        _ = try keeper.words(after: "open", Deadline(.seconds(10)))
    }

    /// Makes victim and peer live here.
    func holds(_ options: inout Victim.Options) {
        let user = Machine.isRoot ? [] : ["--user", "--preserve-credentials"]
        options.launcher = ["nsenter", "--target", "\(keeper.pid)"] + user + ["--net"]
        options.peerLauncher = options.launcher
    }
}
