import Glibc
import Testing

extension PeerTests {
    /// TCP_USER_TIMEOUT replaces the number of probes: a short one makes a lost probe the end of a connection.
    @Suite struct UserTimeouts {
        private static let twelve = ["--firewall-timeout", "12s"]

        private func inject(_ victim: Victim, _ options: [String] = []) throws -> Program {
            try Program.sockalive(["inject", "--no-lock"] + Self.twelve + options + victim.selection)
        }

        @Test(arguments: methods) func `an injection names the risk and the remedy in one line`(method: String) throws {
            let victim = try Victim {
                $0.sessions = 3
                $0.userTimeout = 2000
            }
            let plan = try inject(victim, ["--method", method, "--dry-run"])
            // No table tells TCP_USER_TIMEOUT, and a dry run stops no target to read it.
            let known = method == "ptrace" ? 0 : 1
            #expect(plan.errorLines.count { $0.contains("at risk: TCP_USER_TIMEOUT of 2s") } == known)
            #expect(try victim.keepalive().allSatisfy { !$0.enabled })
            let first = try inject(victim, ["--method", method])
            #expect(first.status == 0)
            let lines = first.errorLines.filter { $0.contains("TCP_USER_TIMEOUT") }
            #expect(lines.count == 1)
            #expect(lines.first?.contains(" and 2 more: at risk: TCP_USER_TIMEOUT of 2s ends the connection") == true)
            #expect(lines.first?.hasSuffix("which leaves after 4s; give it 12s with --user-timeout 12s") == true)
            #expect(first.output.contains("at risk: user timeout 2s"))
            let expected = SocketKeepalive(enabled: true, idle: 2, interval: 1, count: 10, userTimeout: 2000)
            #expect(try victim.keepalive() == [expected, expected, expected])
            let list = try Report.of(["list", "--check"] + Self.twelve + victim.selection, status: 1)
            #expect(list.sockets.allSatisfy { $0.verdict == "at_risk" })

            let remedy = try inject(victim, ["--method", method, "--user-timeout", "12s"])
            #expect(!remedy.errors.contains("TCP_USER_TIMEOUT"))
            #expect(try victim.keepalive().allSatisfy { $0.userTimeout == 12_000 })
            let cured = try Report.of(["list", "--check"] + Self.twelve + victim.selection)
            #expect(cured.sockets.allSatisfy { $0.verdict == "protected" })
        }

        @Test func `an unchanged socket is named by a run that prints, and never by a quiet one`() throws {
            let victim = try Victim {
                $0.keepalive = (1, 1, 9)
                $0.userTimeout = 2000
            }
            for _ in 0..<2 {
                let run = try inject(victim)
                #expect(run.errors.contains("1 unchanged"))
                #expect(run.errorLines.count { $0.contains("TCP_USER_TIMEOUT") } == 1)
                #expect(try inject(victim, ["--quiet"]).errors == "")
            }
            let kept = SocketKeepalive(enabled: true, idle: 1, interval: 1, count: 9, userTimeout: 2000)
            #expect(try victim.keepalive() == [kept])
            #expect(!(try inject(victim, ["--off"]).errors.contains("TCP_USER_TIMEOUT")))
        }

        /// Of 2 + 2 × 1 seconds: with a user timeout of 4 s the third timer is the end, with 5 s it sends a probe.
        @Test(arguments: [("1s", true), ("4s", true), ("5s", false), ("12s", false)])
        func `a user timeout that was given and is too short is warned about`(time: String, isShort: Bool) throws {
            let victim = try Victim()
            let run = try inject(victim, ["--user-timeout", time])
            #expect(run.status == 0)
            #expect(run.errorLines.count { $0.contains("TCP_USER_TIMEOUT of \(time) ends") } == (isShort ? 1 : 0))
            let verdict = try Report.of(["list"] + Self.twelve + victim.selection).socket.verdict
            #expect(verdict == (isShort ? "at_risk" : "protected"))
        }

        @Test(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "a /dev/log of its own takes root"))
        func `the system log has the risk once, with the change`() throws {
            let log = try PrivateLog()
            let victim = try Victim { $0.userTimeout = 2000 }
            let options = ["inject", "--syslog", "--quiet", "--lock", log.path("test.lock")] + Self.twelve
            for expected in [1, 0, 0] {
                let run = try Program.sockalive(options + victim.selection, launcher: log.launcher)
                #expect(run.status == 0 && run.output + run.errors == "")
                let lines = log.lines()
                #expect(lines.count == expected)
                let isWarning = lines.allSatisfy {
                    $0.hasPrefix("<28>") && $0.contains(" event=set ") && $0.contains("TCP_USER_TIMEOUT of 2s")
                        && $0.contains("remedy=\"give it 12s with --user-timeout 12s\"")
                }
                #expect(isWarning)
            }
        }

        @Test func `a watch names the risk with the change and not again`() throws {
            let victim = try Victim { $0.userTimeout = 2000 }
            let watch = try Child(
                [Program.path("sockalive"), "watch", "--no-lock", "--every", "1s"] + Self.twelve + victim.selection)
            let change = watch.errors.line(until: Deadline(.seconds(10)))
            #expect(change?.contains("off → 2/1/10") == true)
            #expect(watch.errors.line(until: Deadline(.seconds(20)))?.contains("TCP_USER_TIMEOUT of 2s") == true)
            #expect(watch.errors.line(until: Deadline(.seconds(2.5))) == nil)
            kill(watch.pid, SIGTERM)
            #expect(watch.wait() == 0)
        }

        /// The path is cut for longer than the first lost probe and shorter than the firewall's timeout.
        @Test(
            .enabled(if: Machine.buildsFirewalls, "no namespaces, or ip (iproute2) or nft (nftables) is missing"),
            arguments: [(0, "protected"), (2000, "at_risk"), (12_000, "protected")])
        func `a verdict foretells whether a connection outlives a lost probe`(
            userTimeout: Int, verdict: String
        ) throws {
            let room = try TestNetwork()
            let victim = try Victim {
                room.holds(&$0)
                $0.mode = .poll
                $0.userTimeout = userTimeout == 0 ? nil : userTimeout
            }
            #expect(try victim.echoes())
            #expect(try Report.of(["inject"] + Self.twelve + victim.selection).socket.verdict == verdict)
            try room.fallSilent()
            usleep(4_500_000)
            try room.speakAgain()
            let isAlive = try !Report.of(["list"] + Self.twelve + victim.selection).sockets.isEmpty
            #expect(isAlive == (verdict == "protected"))
            if isAlive { #expect(try victim.echoes()) }
        }
    }
}
