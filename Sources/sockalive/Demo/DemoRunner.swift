import SockaliveCore

/// The demo from its first line to its verdict.
struct DemoRunner {
    let options: DemoOptions
    private let screen = Screen()

    func run() throws -> DemoOutcome {
        let lab = try Lab.build()
        try say(Self.opening)
        guard try lab.speak().values.allSatisfy(\.isAnswered) else {
            throw DemoFailure("the hosts cannot talk through the firewall on this kernel", .unsupported)
        }
        let start = ContinuousClock.now
        try show(["list"])
        try show(["inject", "--remote", DemoSession.injected.address, "--no-lock"] + options.methodArguments)
        try say(["", "Both stay idle for \(DemoSettings.idle)s. What the firewall knows of them:", ""])
        var timeline = try Timeline(screen: options.json ? nil : screen, firewall: lab.firewall, since: start)
        let tracks = try timeline.run()
        try show(["list"])
        let outcome = try finalExchange(lab, tracks)
        if options.json { try screen.write(JSONOutput.text(DemoReport(outcome))) }
        return outcome
    }

    private static let opening = [
        "The agent (beremote on \(DemoSettings.agentAddress)) has two sessions that lie idle. The firewall forgets",
        "a connection after \(DemoSettings.firewallTimeout)s without a packet, and drops what comes later.",
        "",
        "    beremote ─── firewall ─┬─ \(DemoSession.injected.address):\(DemoSettings.port)   keepalive injected",
        "                           └─ \(DemoSession.untouched.address):\(DemoSettings.port)   untouched",
    ]

    private func finalExchange(_ lab: Lab, _ tracks: [Track]) throws -> DemoOutcome {
        try say([
            "", "The agent sends a message on each session, and waits \(DemoSettings.echoTimeout)s for the echo:", "",
        ])
        let echoes = try lab.speak()
        let views = try lab.firewall.views()
        let results = tracks.map {
            DemoOutcome.Result(track: $0, echo: echoes[$0.session] ?? .silent, dropped: views[$0.session]?.dropped ?? 0)
        }
        let outcome = DemoOutcome(method: options.method ?? .auto, results: results)
        try say(outcome.lines(screen))
        return outcome
    }

    /// Runs a command of this same program before everybody's eyes.
    private func show(_ command: [String]) throws {
        let all = command + ["--firewall-timeout", "\(DemoSettings.firewallTimeout)s"]
        try say(["", screen.paint("$ sockalive " + all.joined(separator: " "), .bold)])
        let end = try ChildProcess.spawnSelf(all + (options.json ? ["--quiet"] : [])).wait()
        guard end == .exited(0) else { throw DemoFailure("`sockalive \(command[0])` \(end)") }
    }

    private func say(_ lines: [String]) throws {
        if options.json { return }
        try screen.write(lines.map { $0 + "\n" }.joined())
    }
}
