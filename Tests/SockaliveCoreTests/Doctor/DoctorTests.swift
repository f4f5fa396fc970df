import SystemPackage
import Testing

@testable import SockaliveCore

/// A machine without obstacles.
private let goodMachine = MachineFacts(
    release: UntrustedText("6.1.0-44-amd64"), architecture: .amd64, pidfdOpenError: nil, pidfdGetfdError: nil,
    processMemoryError: nil, uid: 0, capabilities: [.sysPtrace, .dacReadSearch, .sysAdmin], seccomp: 0, yama: nil,
    selinux: SELinux(mode: .absent), appArmor: AppArmor(isEnabled: false),
    namespaces: NamespaceFacts(isFirstPID: true, isFirstUser: true, isFirstNetwork: true), hidePID: .off,
    keepalive: KeepaliveDefaults(time: 600, interval: 60, probes: 9))

private func checks(_ change: (inout MachineFacts) -> Void = { _ in }) -> [Check] {
    var facts = goodMachine
    change(&facts)
    return MachineChecks(facts: facts, firewallTimeout: Seconds(3600)).all
}

private func check(_ name: String, _ change: (inout MachineFacts) -> Void) throws -> Check {
    try #require(checks(change).first { $0.name == name })
}

@Suite struct MachineChecksTests {
    @Test func `on a machine without obstacles every check is ok`() {
        #expect(checks().allSatisfy { $0.status == .ok && $0.remedy == nil })
        #expect(Set(checks().map(\.name)).count == checks().count)
    }

    @Test(arguments: [
        (nil, false, Check.Status.ok), (0, false, .ok), (1, true, .ok), (2, true, .ok),
        (1, false, .problem), (2, false, .problem), (3, true, .problem), (3, false, .problem),
    ])
    func `the scope of Yama decides who is blocked`(scope: Int?, isPrivileged: Bool, status: Check.Status) throws {
        let yama = try check("yama") {
            $0.yama = scope
            if !isPrivileged { $0.capabilities = [] }
        }
        #expect(yama.status == status)
        #expect((yama.remedy != nil) == (status == .problem))
        if scope == 3 { #expect(yama.remedy?.contains("reboot") == true) }
    }

    @Test(arguments: [
        ("cap_sys_ptrace", Capabilities.sysPtrace), ("cap_dac_read_search", .dacReadSearch),
        ("cap_sys_admin", .sysAdmin),
    ])
    func `each missing capability is noted, with a remedy`(name: String, capability: Capabilities) throws {
        let missing = try check(name) { $0.capabilities.remove(capability) }
        #expect(missing.status == .note)
        #expect(missing.remedy != nil)
        #expect(checks { $0.capabilities = capability }.first { $0.name == name }?.status == .ok)
    }

    @Test func `CAP_SYS_PTRACE is not enough for descriptors of other users`() throws {
        let reading = try check("cap_dac_read_search") { $0.capabilities = .sysPtrace }
        #expect(reading.remedy?.contains("CAP_SYS_PTRACE") == true)
    }

    @Test func `a kernel without pidfd_getfd is a note if ptrace works, else a problem`() throws {
        let old = try check("pidfd") { $0.pidfdGetfdError = .noFunction }
        #expect(old.status == .note)
        #expect(old.remedy?.contains("5.6") == true)
        let elsewhere = checks {
            $0.pidfdGetfdError = .noFunction
            $0.architecture = .other("arm64")
        }
        #expect(elsewhere.filter { $0.status == .problem }.map(\.name) == ["kernel", "pidfd"])
        #expect(try check("pidfd") { $0.pidfdGetfdError = .notPermitted }.message.contains("EPERM"))
        #expect(try check("pidfd") { $0.pidfdOpenError = .noFunction }.message.contains("pidfd_open "))
    }

    @Test func `without process memory and pidfd no method is left`() throws {
        #expect(try check("process_memory") { $0.processMemoryError = .noFunction }.status == .note)
        let alone = try check("process_memory") {
            $0.processMemoryError = .notPermitted
            $0.pidfdGetfdError = .noFunction
        }
        #expect(alone.status == .problem)
    }

    @Test func `SELinux is judged by mode, boolean and context`() throws {
        func status(_ selinux: SELinux) throws -> Check.Status { try check("selinux") { $0.selinux = selinux }.status }
        let cron = UntrustedText("system_u:system_r:crond_t:s0")
        #expect(try status(SELinux(mode: .permissive, denyPtrace: true, context: cron)) == .ok)
        #expect(try status(SELinux(mode: .enforcing, denyPtrace: false, context: cron)) == .note)
        #expect(try status(SELinux(mode: .enforcing, denyPtrace: true, context: cron)) == .problem)
        let free = UntrustedText("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023")
        #expect(try status(SELinux(mode: .enforcing, denyPtrace: false, context: free)) == .ok)
        #expect(try status(SELinux(mode: .enforcing, denyPtrace: nil, context: nil)) == .note)
    }

    @Test func `AppArmor matters if it confines sockalive itself`() throws {
        func status(_ profile: String) throws -> Check.Status {
            try check("apparmor") { $0.appArmor = AppArmor(isEnabled: true, profile: UntrustedText(profile)) }.status
        }
        #expect(try status("unconfined") == .ok)
        #expect(try status("docker-default (enforce)") == .note)
        #expect(try status("sockalive (complain)") == .ok)
    }

    @Test func `a filter, a container and hidepid are noted`() throws {
        #expect(try check("seccomp") { $0.seccomp = 2 }.status == .note)
        let inside = try check("namespaces") {
            $0.namespaces = NamespaceFacts(isFirstPID: false, isFirstUser: true, isFirstNetwork: nil)
        }
        #expect(inside.status == .note)
        #expect(inside.message.contains("PID namespace") && !inside.message.contains("user namespace"))
        #expect(try check("proc") { $0.hidePID = .invisible }.status == .ok)
        let hidden = try check("proc") {
            $0.hidePID = .invisible
            $0.capabilities = []
        }
        #expect(hidden.status == .note && hidden.message.contains("hidepid=invisible"))
    }

    @Test(arguments: [(7200, 75, Check.Status.note), (3480, 60, .note), (3479, 60, .ok), (600, 60, .ok)])
    func `the sysctl is compared with the firewall's timeout`(time: Int, interval: Int, status: Check.Status) throws {
        let found = try check("keepalive") {
            $0.keepalive = KeepaliveDefaults(time: time, interval: interval, probes: 9)
        }
        #expect(found.status == status)
        #expect(found.message.contains("\(time)/\(interval)/9"))
    }

    @Test func `hidepid is read from the visible mount`() {
        func mode(_ lines: String...) -> HidePID { HidePID(mountinfo: Array(lines.joined(separator: "\n").utf8)) }
        let plain = "22 1 0:20 / /proc rw,relatime shared:5 - proc proc rw"
        #expect(mode() == .off)
        #expect(mode(plain) == .off)
        #expect(mode(plain + ",hidepid=2") == .invisible)
        #expect(mode(plain + ",gid=4,hidepid=noaccess") == .noAccess)
        #expect(mode(plain + ",hidepid=2", plain) == .off)
        #expect(mode("22 1 0:20 / /srv/proc rw - proc proc rw,hidepid=2") == .off)
    }

    @Test func `capabilities are read from the effective set`() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000080004\nCapBnd:\t000001ffffffffff\n"
        let capabilities = ProcessStatus(Array(("Uid:\t0\t0\t0\t0\n" + status).utf8))?.effectiveCapabilities
        #expect(capabilities == [.sysPtrace, .dacReadSearch])
        #expect(ProcessStatus(Array("Uid:\t0\t0\t0\t0\n".utf8))?.effectiveCapabilities == nil)
    }
}

@Suite struct TrialChecksTests {
    private let settings = KeepaliveSettings(enabled: true, idle: 601, interval: 61, count: 51)

    private func checks(_ results: TrialResults, seccomp: Int = 0, auto: Method = .pidfd) -> [Check] {
        TrialChecks(results: results, ownSeccomp: seccomp, auto: auto).all
    }

    @Test func `a method that worked is reported with its pause`() {
        let results = TrialResults(
            pidfd: .worked(settings, pausedMicroseconds: 0), ptrace: .worked(settings, pausedMicroseconds: 123),
            lookup: .success(true))
        #expect(checks(results).map(\.status) == [.ok, .ok, .ok])
        #expect(checks(results)[1].message.contains("123 µs"))
        #expect(results.methods == [.pidfd, .ptrace])
    }

    @Test(arguments: [(Method.pidfd, Check.Status.problem, Check.Status.note), (.ptrace, .note, .problem)])
    func `a failure of the method in use is a problem, of another a note`(
        auto: Method, pidfd: Check.Status, ptrace: Check.Status
    ) {
        let failure = TrialOutcome.failed(SocketFailure(.other, .ioError, "it broke"))
        let worked = TrialOutcome.worked(settings, pausedMicroseconds: 1)
        let first = checks(TrialResults(pidfd: failure, ptrace: worked), auto: auto)
        #expect(first.map(\.status) == [pidfd, .ok])
        let second = checks(TrialResults(pidfd: worked, ptrace: failure), auto: auto)
        #expect(second.map(\.status) == [.ok, ptrace])
        let both = checks(TrialResults(pidfd: failure, ptrace: failure), auto: auto)
        #expect(both.map(\.status) == [.problem, .problem])
        #expect(both.allSatisfy { $0.remedy != nil })
    }

    @Test func `a denial under a filter names the filter`() {
        let denied = TrialOutcome.failed(SocketFailure(.permission, .notPermitted, "no permission", remedy: "be root"))
        #expect(checks(TrialResults(pidfd: denied))[0].remedy == "be root")
        #expect(checks(TrialResults(pidfd: denied), seccomp: 2)[0].remedy?.contains("filter") == true)
        #expect(checks(TrialResults(ptrace: .filtered), seccomp: 2, auto: .ptrace)[1].status == .note)
    }

    @Test func `a missing trial target is a problem, a missing sock_diag is none`() {
        let absent = TrialResults(absence: TrialAbsence("the loopback is down", remedy: "ip link set lo up"))
        #expect(checks(absent).map(\.status) == [.problem])
        let missing = TrialResults(lookup: .failure(.noSuchFileOrDirectory))
        #expect(checks(missing).last?.remedy == "modprobe tcp_diag")
        #expect(checks(missing).last?.status == .note)
    }
}

@Suite struct TargetCheckTests {
    private let target = TargetFacts(
        pid: 42, name: UntrustedText("be\u{1b}remote"), executable: nil, uid: 0,
        program: .amd64, threadStates: ["S"], tracer: nil, seccomp: 0, isFrozen: false, denial: nil, sockets: 2)

    private func check(
        _ method: Method, working: [Method] = [.pidfd, .ptrace], suspends: Bool = true,
        _ change: (inout TargetFacts) -> Void = { _ in }
    ) -> Check {
        var facts = target
        change(&facts)
        return TargetCheck(
            facts: facts, method: method, working: working, canSuspendSeccomp: suspends, rights: "be root"
        ).check
    }

    @Test func `an accessible target is ok, and its name is escaped`() {
        let found = check(.pidfd)
        #expect(found.status == .ok)
        #expect(found.message == "64-bit, asleep; 2 connections, by pidfd")
        #expect(found.name == "42 be\\x1bremote")
    }

    @Test func `a target that ptrace cannot hold is a problem for ptrace only`() {
        let obstacles: [(String, (inout TargetFacts) -> Void)] = [
            ("traced", { $0.tracer = .init(pid: 7, name: UntrustedText("gdb")) }),
            ("x32", { $0.program = .x32 }), ("foreign", { $0.program = .other(bits: 64) }),
            ("hanging", { $0.threadStates = ["D", "D"] }), ("frozen", { $0.isFrozen = true }),
        ]
        for (name, change) in obstacles {
            #expect(check(.ptrace, change).status == .problem, "\(name)")
            #expect(check(.ptrace, change).remedy != nil, "\(name)")
            #expect(check(.pidfd, change).status != .problem, "\(name)")
        }
        let traced = check(.ptrace) { $0.tracer = .init(pid: 7, name: UntrustedText("gdb")) }
        #expect(traced.remedy?.contains("gdb (PID 7)") == true)
        #expect(check(.ptrace) { $0.threadStates = ["D", "S"] }.status == .ok)
        #expect(check(.ptrace) { $0.program = .i386 }.status == .ok)
    }

    @Test func `a seccomp filter is an obstacle for ptrace only if it cannot be suspended`() {
        #expect(check(.ptrace) { $0.seccomp = 2 }.status == .ok)
        #expect(check(.ptrace, suspends: false) { $0.seccomp = 2 }.status == .problem)
        #expect(check(.pidfd, suspends: false) { $0.seccomp = 2 }.status == .ok)
    }

    @Test func `missing rights, and a method that failed its trial, are problems`() {
        #expect(check(.pidfd) { $0.denial = .notPermitted }.remedy == "be root")
        #expect(check(.pidfd) { $0.denial = .notPermitted }.status == .problem)
        #expect(check(.pidfd, working: [.ptrace]).remedy == "see try_pidfd above")
    }

    @Test func `a stopped, a frozen, an exited and an idle target are noted`() {
        #expect(check(.pidfd) { $0.threadStates = ["T"] }.remedy?.contains("kill -CONT 42") == true)
        #expect(check(.ptrace) { $0.threadStates = ["T", "T"] }.status == .note)
        #expect(check(.pidfd) { $0.isFrozen = true }.status == .note)
        #expect(check(.pidfd) { $0.threadStates = ["Z"] }.message == "has exited, and waits for its parent")
        #expect(check(.pidfd) { $0.sockets = 0 }.status == .note)
    }

    @Test func `the ELF header gives the kind of program`() {
        func header(_ size: UInt8, _ data: UInt8, _ machine: [UInt8]) -> [UInt8] {
            [0x7f, 0x45, 0x4c, 0x46, size, data] + [UInt8](repeating: 0, count: 12) + machine
        }
        #expect(TargetFacts.Program(header: header(2, 1, [62, 0])) == .amd64)
        #expect(TargetFacts.Program(header: header(1, 1, [62, 0])) == .x32)
        #expect(TargetFacts.Program(header: header(1, 1, [3, 0])) == .i386)
        #expect(TargetFacts.Program(header: header(2, 1, [183, 0])) == .other(bits: 64))
        #expect(TargetFacts.Program(header: header(1, 2, [0, 3])) == .i386)
        let cut = Array(header(2, 1, [62, 0]).dropLast())
        for broken in [[], Array("#!/bin/sh\n          ".utf8), header(3, 1, [62, 0]), cut] {
            #expect(TargetFacts.Program(header: broken) == nil)
        }
    }
}
