import Glibc
import SockaliveCore

/// Runs the demo from its first line to its verdict.
package struct DemoRunner {
    private let method: MethodChoice?
    private let screen: Screen?

    /// - Parameter screen: the output; nil prints nothing.
    package init(method: MethodChoice?, screen: Screen?) {
        self.method = method
        self.screen = screen
    }

    package func run() throws -> DemoOutcome {
        let network = try DemoNetwork.build()
        try print(Self.opening)
        guard try network.exchangeMessages().values.allSatisfy(\.isAnswered) else {
            throw DemoFailure("the hosts cannot talk through the firewall on this kernel", .unsupported)
        }
        let start = ContinuousClock.now
        try run(["list"])
        try run(["inject", "--remote", DemoSession.injected.address, "--no-lock"] + methodArguments)
        try print(["", "Both stay idle for \(DemoSettings.idle)s. What the firewall knows of them:", ""])
        var timeline = try Timeline(screen: screen, firewall: network.firewall, since: start)
        let tracks = try timeline.run()
        try run(["list"])
        return try finalExchange(network, tracks)
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

    private func finalExchange(_ network: DemoNetwork, _ tracks: [Track]) throws -> DemoOutcome {
        try print([
            "", "The agent sends a message on each session, and waits \(DemoSettings.echoTimeout)s for the echo:", "",
        ])
        let echoes = try network.exchangeMessages()
        let views = try network.firewall.views()
        let results = tracks.map {
            DemoOutcome.Result(track: $0, echo: echoes[$0.session] ?? .silent, dropped: views[$0.session]?.dropped ?? 0)
        }
        let outcome = DemoOutcome(method: method ?? .auto, results: results)
        try screen.map { try print(outcome.lines($0)) }
        return outcome
    }

    /// Prints a command line of this same program, and runs it.
    private func run(_ command: [String]) throws {
        let all = command + ["--firewall-timeout", "\(DemoSettings.firewallTimeout)s"]
        try screen.map { try print(["", $0.paint("$ sockalive " + all.joined(separator: " "), .bold)]) }
        let end = try ChildProcess.spawnSelf(all + (screen == nil ? ["--quiet"] : [])).wait()
        guard end == .exited(0) else { throw DemoFailure("`sockalive \(command[0])` \(end)") }
    }

    private func print(_ lines: [String]) throws {
        try screen?.write(lines.map { $0 + "\n" }.joined())
    }
}

/// Standard output: a terminal with a width and colors, or a file or pipe for plain lines.
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

    /// Standard output in its present state.
    ///
    /// - Parameter output: prints a text; false if the output is closed or full.
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
    /// The value with one digit after the point.
    var tenths: String {
        let tenths = Int((self * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

/// Why the demo could not run: one line for the user, and the exit code.
package struct DemoFailure: Error {
    /// The error and its remedy.
    package let line: String
    package let status: RunStatus

    init(_ line: String, _ status: RunStatus = .someFailed) {
        self.line = line
        self.status = status
    }

    /// - Returns: nil for an error of another type.
    package init?(_ error: any Error) {
        switch error {
        case let failure as DemoFailure: self = failure
        case let error as ChildProcessError: self.init("\(error)")
        default: return nil
        }
    }
}

/// The parent process has ended, so nobody reads a report.
package struct ParentGone: Error {}
