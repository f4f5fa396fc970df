import SystemPackage
import Testing

@testable import SockaliveCore

/// A machine without obstacles.
private let goodMachine = MachineFacts(
    release: KernelVersion("6.1.0-44-amd64".utf8), architecture: .amd64, pidfdOpenError: nil, pidfdGetfdError: nil,
    processMemoryError: nil, rights: .ofRoot, seccomp: 0, selinux: SELinux(mode: .absent),
    appArmor: AppArmor(isEnabled: false), hidePID: .off, processCount: 200,
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
            $0.rights.yama = scope
            if !isPrivileged { $0.rights.held = [] }
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
        let missing = try check(name) { $0.rights.held.remove(capability) }
        #expect(missing.status == .note)
        #expect(missing.remedy != nil)
        #expect(checks { $0.rights.held = capability }.first { $0.name == name }?.status == .ok)
    }

    @Test func `a kernel that cannot suspend a filter needs no right for it`() throws {
        for (error, release) in [(Errno.ioError, "3.10.0-1160.el7.x86_64"), (.invalidArgument, "6.1.0")] {
            let found = try check("cap_sys_admin") {
                $0.suspensionError = error
                $0.release = KernelVersion(release.utf8)
                $0.pidfdOpenError = release.hasPrefix("3") ? .noFunction : nil
            }
            #expect(found.status == .note && found.message.hasPrefix("no right helps"), "\(found)")
            #expect(found.message.contains("Linux 4.3") == release.hasPrefix("3"))
            #expect(found.remedy?.contains("CAP_SYS_ADMIN") == false)
        }
        let confined = try check("cap_sys_admin") { $0.suspensionError = .notPermitted }
        #expect(confined.status == .note && confined.message.contains("EPERM"))
    }

    @Test func `an unsupported kernel is a problem`() throws {
        let found = try check("kernel") { $0.release = KernelVersion("2.6.32-754.el6.x86_64".utf8) }
        #expect(found.status == .problem && found.remedy?.contains("3.10") == true)
    }

    /// There is no ptrace injection, so nothing is said of what it needs.
    @Test func `on another architecture a filter and a capability are judged without ptrace`() throws {
        let elsewhere = checks {
            $0.architecture = .other("arm64")
            $0.release = KernelVersion("7.2.0-1-arm64".utf8)
            $0.rights.held.remove(.sysAdmin)
            $0.seccomp = 2
        }
        #expect(elsewhere.allSatisfy { $0.status != .problem })
        for check in elsewhere where check.name != "kernel" && check.name != "process_memory" {
            #expect(!check.message.contains("ptrace injection cannot"), "\(check)")
            #expect(!check.message.contains("ptrace injection leaves"), "\(check)")
        }
    }

    @Test func `CAP_SYS_PTRACE is not enough for descriptors of other users`() throws {
        let reading = try check("cap_dac_read_search") { $0.rights.held = .sysPtrace }
        #expect(reading.remedy?.hasPrefix("add CAP_DAC_READ_SEARCH:") == true)
    }

    @Test func `a kernel without pidfd_getfd is a note if ptrace works, else a problem`() throws {
        func old(_ facts: inout MachineFacts) {
            facts.pidfdGetfdError = .noFunction
            facts.release = KernelVersion("5.4.0-216-generic".utf8)
        }
        #expect(try check("pidfd", old).status == .note)
        #expect(try check("pidfd", old).remedy?.contains("5.6") == true)
        let elsewhere = checks {
            old(&$0)
            $0.architecture = .other("arm64")
        }
        #expect(elsewhere.filter { $0.status == .problem }.map(\.name) == ["kernel", "pidfd"])
        #expect(elsewhere.allSatisfy { !$0.message.contains("ptrace serves") })
        #expect(try check("pidfd") { $0.pidfdGetfdError = .notPermitted }.message.contains("EPERM"))
        #expect(try check("pidfd") { $0.pidfdOpenError = .noFunction }.message.contains("pidfd_open "))
    }

    @Test(arguments: [Errno.noFunction, .notPermitted])
    func `on a new kernel a missing call is filtered, and no update is recommended`(error: Errno) throws {
        let found = try check("pidfd") { $0.pidfdGetfdError = error }
        #expect(found.status == .note && found.message.contains("filter"))
        let elsewhere = checks {
            $0.pidfdGetfdError = error
            $0.release = KernelVersion("7.2.0-1-arm64".utf8)
            $0.architecture = .other("arm64")
        }
        #expect(elsewhere.filter { $0.status == .problem }.map(\.name) == ["pidfd"])
        for check in elsewhere {
            let text = check.message + (check.remedy ?? "")
            #expect(!text.contains("update the kernel") && !text.contains("ptrace serves"), "\(text)")
        }
    }

    @Test func `if no descriptor is free, that is said, and not that a call is missing`() throws {
        let found = try check("pidfd") { $0.pidfdOpenError = .tooManyOpenFiles }
        #expect(found.status == .problem && found.remedy?.contains("ulimit -n") == true)
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
        let inside = try check("namespaces") { $0.rights.surroundings = Surroundings(isFirstPID: false) }
        #expect(inside.status == .note)
        #expect(inside.message.contains("PID namespace") && !inside.message.contains("user namespace"))
        #expect(try check("proc") { $0.hidePID = .invisible }.status == .ok)
        let hidden = try check("proc") {
            $0.hidePID = .invisible
            $0.rights.held = []
        }
        #expect(hidden.status == .note && hidden.message.contains("hidepid=invisible"))
    }

    @Test func `a container is named, also with all namespaces of the host`() throws {
        let shared = try check("namespaces") { $0.rights.surroundings.container = .docker }
        #expect(shared.status == .note)
        #expect(shared.message.hasPrefix("in a docker container: the host's PID namespace"))
        let own = try check("namespaces") {
            $0.rights.surroundings = Surroundings(container: .podman, isFirstPID: false)
        }
        #expect(own.remedy?.contains("podman run --pid=host") == true)
        let network = try check("namespaces") { $0.rights.surroundings.isFirstNetwork = false }
        #expect(network.message.hasPrefix("in its own network namespace") && network.remedy == "nothing to do")
    }

    @Test func `if no process matches, it says what can be seen`() {
        func absence(_ change: (inout MachineFacts) -> Void) -> Check {
            var facts = goodMachine
            change(&facts)
            return MachineChecks(facts: facts, firewallTimeout: Seconds(3600)).absence(of: "process beremote")
        }
        #expect(absence { _ in }.remedy == "start the agent, or name it with --process or --pid")
        let inside = absence {
            $0.rights.surroundings = Surroundings(container: .kubernetes, isFirstPID: false)
            $0.processCount = 3
        }
        #expect(inside.status == .note && inside.message.contains("among the 3 of this PID namespace"))
        #expect(inside.remedy?.contains("hostPID: true") == true)
        let hidden = absence {
            $0.hidePID = .invisible
            $0.rights.held = []
        }
        #expect(hidden.status == .problem && hidden.message.contains("hidepid"))
    }

    @Test func `a right that does not count is not shown as held`() throws {
        let users = try check("cap_sys_admin") {
            $0.rights.surroundings.isFirstUser = false
            $0.pidfdGetfdError = .noFunction
        }
        #expect(users.status == .note && users.message.contains("user namespace"))
        let filtered = try check("cap_sys_admin") {
            $0.seccomp = 2
            $0.pidfdGetfdError = .noFunction
        }
        #expect(filtered.status == .note && filtered.message.contains("under a filter"))
        #expect(filtered.remedy?.contains("outside the container") == true)
        let inside = try check("cap_sys_ptrace") { $0.rights.surroundings.isFirstUser = false }
        #expect(inside.message.contains("none outside"))
        let override = try check("cap_dac_read_search") { $0.rights.held = [.sysPtrace, .dacOverride] }
        #expect(override.status == .ok && override.message.contains("CAP_DAC_OVERRIDE"))
    }

    @Test(arguments: [Surroundings.Container.docker, .podman, .kubernetes, .nspawn, .other, nil])
    func `root is never told to run as root`(container: Surroundings.Container?) {
        let all = checks {
            $0.rights.held = []
            $0.rights.surroundings.container = container
            $0.hidePID = .invisible
            $0.pidfdGetfdError = .notPermitted
            $0.rights.yama = 2
        }
        for check in all { #expect(check.remedy?.contains("as root") != true, "\(check)") }
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
}

@Suite struct TrialChecksTests {
    private let settings = KeepaliveSettings(enabled: true, idle: 601, interval: 61, count: 51)

    private func checks(_ results: TrialResults, auto: Method = .pidfd) -> [Check] {
        TrialChecks(results: results, surroundings: Surroundings(), auto: auto).all
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

    @Test func `a failure has its own remedy, and a filter on the child is a note`() {
        let denied = TrialOutcome.failed(SocketFailure(.permission, .notPermitted, "no permission", remedy: "be root"))
        #expect(checks(TrialResults(pidfd: denied))[0].remedy == "be root")
        let filtered = TrialResults(pidfd: .worked(settings, pausedMicroseconds: 0), ptrace: .filtered)
        #expect(checks(filtered)[1].remedy == "nothing to do: pidfd works")
        let both = checks(TrialResults(pidfd: denied, ptrace: .filtered), auto: .ptrace)
        #expect(both[0].message == "no permission (ptrace may work for targets without a filter)")
        let alone = both[1]
        #expect(alone.status == .note && alone.remedy?.contains("without a filter") == true)
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
            facts: facts, method: method, working: working,
            suspending: suspends ? .ok("cap_sys_admin", "held") : .note("cap_sys_admin", "missing", remedy: "add it"),
            rights: MissingRights(
                users: .all(1000), groups: .all(1000), held: [], surroundings: Surroundings(),
                target: .init(users: .all(0), groups: .all(0)))
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
        let denied = check(.pidfd) { $0.denial = .notPermitted }
        #expect(denied.message.hasSuffix("no permission to reach into it: it is user 0's"))
        #expect(denied.remedy == "run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
        #expect(check(.pidfd) { $0.denial = .notPermitted }.status == .problem)
        #expect(check(.pidfd, working: [.ptrace]).remedy == "see try_pidfd above")
    }

    @Test func `a stopped, a frozen, an exited and an idle target are noted`() {
        #expect(check(.pidfd) { $0.threadStates = ["T"] }.remedy?.contains("kill -CONT 42") == true)
        #expect(check(.ptrace) { $0.threadStates = ["T", "T"] }.status == .note)
        #expect(check(.pidfd) { $0.isFrozen = true }.status == .note)
        #expect(check(.pidfd) { $0.threadStates = ["Z"] }.message == "has exited, and waits for its parent")
        #expect(check(.pidfd) { $0.sockets = 0 }.status == .note)
        #expect(check(.ptrace) { $0.isFrozen = true }.remedy?.contains("docker unpause") == true)
    }

    @Test func `a target without a matching connection is no problem, whatever else it is`() {
        let obstacles: [(inout TargetFacts) -> Void] = [
            { $0.tracer = .init(pid: 7, name: UntrustedText("gdb")) }, { $0.program = .x32 }, { $0.isFrozen = true },
            { $0.seccomp = 2 }, { $0.denial = .notPermitted },
        ]
        for change in obstacles {
            let found = check(.ptrace, suspends: false) {
                $0.sockets = 0
                change(&$0)
            }
            #expect(found.status == .note && found.message.hasSuffix("no connection that matches"))
        }
        let unknown = check(.ptrace) {
            $0.sockets = 0
            $0.hidesDescriptors = true
        }
        #expect(unknown.status == .problem)
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
