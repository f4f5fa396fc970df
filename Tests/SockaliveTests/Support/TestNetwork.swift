import Testing

/// A network namespace with only a loopback interface.
final class TestNetwork {
    private let keeper: Child

    init() throws {
        keeper = try Child(
            ["unshare"] + Machine.privateUser + ["--net", "sh", "-c", "ip link set lo up && echo open && exec cat"])
        _ = try keeper.words(after: "open", Deadline(.seconds(10)))
    }

    var launcher: [String] {
        let user = Machine.isRoot ? [] : ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", "\(keeper.pid)"] + user + ["--net"]
    }

    /// Runs victim and peer in this network.
    func holds(_ options: inout Victim.Options) {
        options.launcher = launcher
        options.peerLauncher = launcher
    }

    /// A link to another one, with `fe80::1` at this end and `fe80::2` at the other, and no other addresses.
    func link(_ name: String, to other: TestNetwork) throws {
        try run("ip link add '\(name)' type veth peer name right netns \(other.keeper.pid)")
        for (room, end, address) in [(self, name, "fe80::1"), (other, "right", "fe80::2")] {
            try room.run("ip link set '\(end)' addrgenmode none")
            try room.run("ip addr add \(address)/64 dev '\(end)' nodad && ip link set '\(end)' up")
        }
    }

    @discardableResult
    func run(_ command: String) throws -> String {
        let program = try Program.run(launcher + ["sh", "-c", command])
        #expect(program.status == 0, "\(program.errors)")
        return program.output
    }

    /// From now on all packets are dropped, without an error to the sender.
    func fallSilent() throws {
        try nft(
            "add table inet silence; add chain inet silence inbound { type filter hook input priority 0; policy drop; }"
        )
    }

    /// From now on every packet is answered with a reset.
    func reset() throws {
        try nft(
            "add table inet silence; add chain inet silence inbound { type filter hook input priority 0; }; "
                + "add rule inet silence inbound tcp flags != rst reject with tcp reset")
    }

    func speakAgain() throws {
        try nft("delete table inet silence")
    }

    /// What a command prints here.
    func run(_ command: [String]) throws -> String {
        let program = try Program.run(launcher + command)
        #expect(program.status == 0, "\(program.errors)")
        return program.output
    }

    private func nft(_ commands: String) throws {
        let program = try Program.run(launcher + ["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin nft '\(commands)'"])
        #expect(program.status == 0, "\(program.errors)")
    }
}
