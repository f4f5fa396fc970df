import Testing

/// A wrong command line changes nothing, and gives the reason in one line.
@Suite struct WrongCommandLines {
    /// Every value that an option of `list` and `inject` must reject.
    static let selection: [[String]] =
        wrong("--process", ["", "a/b"])
        + wrong("--pid", ["", "x", "0", "-1", "1.5", "+1", " 1", "99999999999"])
        + wrong("--exe", ["", "relative/path"])
        + wrong("--user", ["", "no such user", "-1", "99999999999"])
        + wrong("--port", ["", "x", "0", "-1", "65536", "5633x", "0x1601", "99999999999999999999"])
        + wrong(
            "--remote",
            [
                "", "x", "300.1.1.1", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "::/129", "1.2.3.4/x", "::g",
                "host", "fe80::1%", "fe80::1%a/b/64", "fe80::1%a b", "fe80::1%.", "fe80::1%aaaaaaaaaaaaaaaa",
                "2001:db8::1%eth0", "::/0%eth0", "fe80::/9%eth0", "1.2.3.4%eth0", "fe80::/64%a/64",
            ])

    static let keepalive: [[String]] =
        wrong("--firewall-timeout", durations + ["3s", "3"])
        + wrong("--idle", durations + ["32768", "10h"])
        + wrong("--interval", durations + ["32768"])
        + wrong("--user-timeout", durations + ["3000000"])
        + wrong("--count", ["", "x", "0", "-1", "128", "1s", "1.5", "113"])
        + wrong("--method", ["", "x", "PIDFD", "gdb"])
        + wrong("--source", ["", "x", "DIAG"])

    static let running: [[String]] =
        wrong("--timeout", durations) + wrong("--lock", [""]) + wrong("--metrics", [""])
        + [["--lock", "/run/x", "--no-lock"]]

    static let probing: [[String]] = wrong("--wait", durations + ["301s", "6m"])

    static let durations = [
        "", "x", "0", "0s", "0h0m", "-1", "-5m", "1.5m", "5x", "m", "1m1", "1m1h", "1m1m", "1h 30m", "1d", "９",
        "99999999999999999999h",
    ]

    static let combinations: [[String]] = [
        ["--any-process", "--process", "beremote"], ["--any-process", "--pid", "1"], ["--any-port", "--port", "5633"],
        ["--quiet", "--verbose"], ["--off", "--idle", "5m"], ["--off", "--count", "5"], ["--unknown"], ["surplus"],
        ["--pid"], ["--port"], ["--config", ""], ["--config", "/nonexistent"], ["--json=yes"], ["--pid", "1\n2"],
        ["--process", "a\u{1b}[31m/b"], ["--half-closed=yes"],
    ]

    static func wrong(_ option: String, _ values: [String]) -> [[String]] {
        values.map { [option, $0] }
    }

    static let ofOneCommand = [
        "list": wrong("--timeout", durations) + [["--dry-run"], ["--wait", "5s"], ["--syslog"], ["--every", "5s"]],
        "inject": running + probing.map { ["--probe"] + $0 } + [["--wait", "5s"], ["--dry-run", "--probe"]],
        "probe": running + probing + [["--dry-run"], ["--probe"], ["--check"]],
    ]

    @Test(arguments: ["list", "inject", "probe"])
    func `every wrong value gives 64 and one line`(command: String) throws {
        // All commands share the code of these options. The other commands only prove that they reject them.
        let shared = Self.selection + Self.keepalive + Self.combinations
        let some = command == "list" ? shared : shared.filter { $0.count != 2 || $0[1] == "x" }
        for arguments in some + Self.ofOneCommand[command]! {
            // If a value were accepted, the command must find nothing to change.
            let harmless = arguments.contains("--remote") ? [] : ["--remote", "203.0.113.1"]
            try expectRefusal([command] + arguments + harmless)
        }
    }

    @Test(arguments: [["lisst"], ["--lisst"], ["list", "inject"], ["inject", "--dry-run=maybe"]])
    func `every wrong word gives 64 and one line`(arguments: [String]) throws {
        try expectRefusal(arguments)
    }

    private func expectRefusal(_ arguments: [String]) throws {
        let program = try Program.sockalive(arguments)
        let comment = Comment(rawValue: "\(arguments) gave \(program.status): \(program.errors)")
        #expect(program.status == 64, comment)
        #expect(program.errors.hasPrefix("sockalive: "), comment)
        #expect(program.errors.hasSuffix("\n") && program.errors.filter { $0 == "\n" }.count == 1, comment)
        #expect(!program.errors.contains("\u{1b}"), comment)
        #expect(program.output == "", comment)
    }

    @Test(arguments: [
        ["--firewall-timeout", "4s"], ["--idle", "1"], ["--idle", "32767"], ["--interval", "9h6m7s"], ["--count", "1"],
        ["--count", "127"], ["--port", "1"], ["--port", "65535"], ["--remote", "::/0"], ["--remote", "0.0.0.0/0"],
        ["--remote", "fe80::/10%aaaaaaaaaaaaaaa"], ["--remote", "febf::1%a/128"],
        ["--user", "root"], ["--user", "4294967294"], ["--method", "auto"], ["--user-timeout", "596h"],
    ])
    func `the last valid value before a wrong one is accepted`(arguments: [String]) throws {
        let program = try Program.sockalive(["list", "--pid", "2147483647"] + arguments)
        #expect(program.status == 0, "\(program.errors)")
    }

    @Test func `the version is one line`() throws {
        let program = try Program.sockalive(["--version"])
        #expect(program.status == 0)
        #expect(program.output.wholeMatch(of: /sockalive \d+\.\d+\.\d+\n/) != nil)
    }
}
