import Glibc
import SockaliveCore

/// The demo from its first line to its verdict.
package struct DemoRunner {
    private let method: MethodChoice?
    private let screen: Screen?

    /// - Parameter screen: nil tells no story.
    package init(method: MethodChoice?, screen: Screen?) {
        self.method = method
        self.screen = screen
    }

    package func run() throws -> DemoOutcome {
        let lab = try Lab.build()
        try say(Self.opening)
        guard try lab.speak().values.allSatisfy(\.isAnswered) else {
            throw DemoFailure("the hosts cannot talk through the firewall on this kernel", .unsupported)
        }
        let start = ContinuousClock.now
        try show(["list"])
        try show(["inject", "--remote", DemoSession.injected.address, "--no-lock"] + methodArguments)
        try say(["", "Both stay idle for \(DemoSettings.idle)s. What the firewall knows of them:", ""])
        var timeline = try Timeline(screen: screen, firewall: lab.firewall, since: start)
        let tracks = try timeline.run()
        try show(["list"])
        return try finalExchange(lab, tracks)
    }

    private static let opening = [
        "The agent (beremote on \(DemoSettings.agentAddress)) has two sessions that lie idle. The firewall forgets",
        "a connection after \(DemoSettings.firewallTimeout)s without a packet, and drops what comes later.",
        "",
        "    beremote ─── firewall ─┬─ \(DemoSession.injected.address):\(DemoSettings.port)   keepalive injected",
        "                           └─ \(DemoSession.untouched.address):\(DemoSettings.port)   untouched",
    ]

    private var methodArguments: [String] {
        method.map { ["--method", $0.rawValue] } ?? []
    }

    private func finalExchange(_ lab: Lab, _ tracks: [Track]) throws -> DemoOutcome {
        try say([
            "", "The agent sends a message on each session, and waits \(DemoSettings.echoTimeout)s for the echo:", "",
        ])
        let echoes = try lab.speak()
        let views = try lab.firewall.views()
        let results = tracks.map {
            DemoOutcome.Result(track: $0, echo: echoes[$0.session] ?? .silent, dropped: views[$0.session]?.dropped ?? 0)
        }
        let outcome = DemoOutcome(method: method ?? .auto, results: results)
        try screen.map { try say(outcome.lines($0)) }
        return outcome
    }

    /// Runs a command of this same program before everybody's eyes.
    private func show(_ command: [String]) throws {
        let all = command + ["--firewall-timeout", "\(DemoSettings.firewallTimeout)s"]
        try screen.map { try say(["", $0.paint("$ sockalive " + all.joined(separator: " "), .bold)]) }
        let end = try ChildProcess.spawnSelf(all + (screen == nil ? ["--quiet"] : [])).wait()
        guard end == .exited(0) else { throw DemoFailure("`sockalive \(command[0])` \(end)") }
    }

    private func say(_ lines: [String]) throws {
        try screen?.write(lines.map { $0 + "\n" }.joined())
    }
}

/// Standard output as it is: a terminal with its width and colors, or something that takes plain lines.
package struct Screen {
    let isTerminal: Bool
    let columns: Int
    private let style: TextStyle
    private let output: (String) -> Bool

    init(isTerminal: Bool, usesColor: Bool, columns: Int, output: @escaping (String) -> Bool = { _ in true }) {
        self.isTerminal = isTerminal
        self.columns = columns
        self.output = output
        style = TextStyle(isColored: usesColor)
    }

    /// What standard output is right now.
    ///
    /// - Parameter output: writes to it; false if it is closed or full.
    package init(style: TextStyle, output: @escaping (String) -> Bool) {
        let isTerminal = isatty(STDOUT_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"
        var size = winsize()
        let isKnown = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        self.init(
            isTerminal: isTerminal, usesColor: isTerminal && style.isColored,
            columns: isKnown ? Int(size.ws_col) : 80, output: output)
    }

    func paint(_ text: String, _ color: TextStyle.Color) -> String {
        style.paint(text, color)
    }

    package func write(_ text: String) throws {
        guard output(text) else {
            throw DemoFailure("standard output is closed or full: the rest of the story is lost")
        }
    }
}

extension Double {
    /// With one digit behind the point.
    var tenths: String {
        let tenths = Int((self * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

/// Why the demo could not be given: one line for people, and what the exit code says.
package struct DemoFailure: Error {
    /// The line says what was wrong and what to do about it.
    package let line: String
    package let status: RunStatus

    init(_ line: String, _ status: RunStatus = .someFailed) {
        self.line = line
        self.status = status
    }

    /// - Returns: nil for an error of another kind.
    package init?(_ error: any Error) {
        switch error {
        case let failure as DemoFailure: self = failure
        case let error as ChildProcessError: self.init("\(error)")
        default: return nil
        }
    }
}

/// The process that started this one has ended: nobody is left to report to.
package struct ParentGone: Error {}
