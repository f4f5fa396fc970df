import Testing

/// A network namespace with only a loopback interface.
final class TestNetwork {
    private let keeper: Child

    init() throws {
        keeper = try Child(
            ["unshare"] + Machine.privateUser + ["--net", "sh", "-c", "ip link set lo up && echo open && exec cat"])
        _ = try keeper.words(after: "open", Deadline(.seconds(10)))
    }

    private var launcher: [String] {
        let user = Machine.isRoot ? [] : ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", "\(keeper.pid)"] + user + ["--net"]
    }

    /// Runs victim and peer in this network.
    func holds(_ options: inout Victim.Options) {
        options.launcher = launcher
        options.peerLauncher = launcher
    }

    /// From now on all packets are dropped, without an error to the sender.
    func fallSilent() throws {
        try nft(
            "add table inet silence; add chain inet silence inbound { type filter hook input priority 0; policy drop; }"
        )
    }

    func speakAgain() throws {
        try nft("delete table inet silence")
    }

    private func nft(_ commands: String) throws {
        let program = try Program.run(launcher + ["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin nft '\(commands)'"])
        #expect(program.status == 0, "\(program.errors)")
    }
}
