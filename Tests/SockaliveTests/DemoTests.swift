import Foundation
import Testing

/// `sockalive demo`, as a user would run it.
@Suite(.serialized, .enabled(if: DemoRun.hasTools, "ip or nft is missing"))
struct `The demo` {
    @Test(.enabled(if: DemoRun.works(), "namespaces are refused to this user"))
    func `shows one session die and the other live`() throws {
        let run = try DemoRun()
        let end = run.waitUntilEnd()
        #expect(end.status == 0, "\(end.output)\(end.errors)")
        #expect(end.output.contains("\nLIVED  192.0.2.1"))
        #expect(end.output.contains("\nDIED   192.0.2.2"))
        #expect(end.output.contains("$ sockalive inject --remote 192.0.2.1"))
        #expect(!end.output.contains("\u{1B}"), "plain lines where there is no terminal")
        #expect(end.seconds < 30)
        #expect(run.leftProcesses().isEmpty)
    }

    @Test(.enabled(if: DemoRun.works(as: DemoRun.nobody), "nobody cannot make user namespaces, or not read the build"))
    func `needs no root, and prints JSON`() throws {
        let run = try DemoRun(DemoRun.nobody, ["--json", "--method", "ptrace"])
        let end = run.waitUntilEnd()
        #expect(end.status == 0, "\(end.output)\(end.errors)")
        let json = try #require(JSONSerialization.jsonObject(with: Data(end.output.utf8)) as? [String: Any])
        #expect(json["schema"] as? Int == 1)
        #expect(json["command"] as? String == "demo")
        #expect(json["as_expected"] as? Bool == true)
        let sessions = try #require(json["sessions"] as? [[String: Any]])
        #expect(sessions.map { $0["answered"] as? Bool } == [true, false])
        #expect(sessions.map { $0["forgotten"] as? Bool } == [false, true])
        #expect(sessions[1]["milliseconds"] is NSNull)
        #expect(run.leftProcesses().isEmpty)
    }

    @Test(.enabled(if: DemoRun.works(), "namespaces are refused to this user"), arguments: [SIGINT, SIGTERM, SIGKILL])
    func `leaves nothing if it is stopped half-way`(signal: Int32) throws {
        let run = try DemoRun()
        #expect(run.reads(until: "Both stay idle"))
        #expect(run.leftProcesses().count >= 4, "demo, stage, server and agent")
        kill(run.pid, signal)
        let end = run.waitUntilEnd()
        #expect(end.status == signal, "the signal must show in how it ended")
        #expect(run.leftProcesses(timeout: 2).isEmpty)
    }

    @Test func `names the packages of missing programs`() throws {
        let end = try DemoRun(environment: ["PATH": "/nonexistent"]).waitUntilEnd()
        #expect(end.status == 69)
        #expect(end.output.isEmpty)
        #expect(end.errors.split(separator: "\n").count == 1)
        #expect(end.errors.contains("apt-get install iproute2 nftables"))
    }

    @Test(.enabled(if: DemoRun.works(), "namespaces are refused to this user"))
    func `says in one line that the kernel cannot do it`() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let nft = folder.appendingPathComponent("nft")
        let script = "#!/bin/sh\necho 'Error: Operation not supported'\nexit 1\n"
        // A child process writes the file. If it were open in another child, it could not be executed (ETXTBSY).
        let write = ["sh", "-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"", nft.path, script]
        #expect(try Program.run(write).status == 0)
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let end = try DemoRun(environment: ["PATH": "\(folder.path):\(path)"]).waitUntilEnd()
        #expect(end.status == 69)
        #expect(end.errors.split(separator: "\n").count == 1)
        #expect(end.errors.contains("Operation not supported; the demo needs nf_tables"))
    }

    @Test(.enabled(if: geteuid() == 0, "only root can make a place that refuses user namespaces"))
    func `names the remedy where user namespaces are refused`() throws {
        // A user namespace may forbid new ones inside, and the machine stays unchanged.
        let script = """
            outside=$(readlink /proc/$$/ns/user)
            unshare --user sleep 30 >/dev/null 2>&1 & while [ "$(readlink /proc/$!/ns/user)" = "$outside" ]; do :; done
            echo 0 0 65536 > /proc/$!/uid_map && echo 0 0 65536 > /proc/$!/gid_map
            nsenter --target $! --user --setuid 0 --setgid 0 sh -c '
                echo 0 > /proc/sys/user/max_user_namespaces
                exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" demo' "$0"
            code=$?; kill -9 $!; exit $code
            """
        let end = try DemoRun(["sh", "-c", script], []).waitUntilEnd()
        #expect(end.status == 77)
        #expect(end.errors.contains("user namespaces are refused here"))
        #expect(end.errors.contains("sysctl -w user.max_user_namespaces="))
    }

    @Test func `its internal commands do nothing outside`() throws {
        let end = try DemoRun(command: "demo-stage").waitUntilEnd()
        #expect(end.status == 1)
        #expect(end.errors.contains("part of `sockalive demo`"))
    }

    @Test func `a wrong method is a wrong command line`() throws {
        #expect(try DemoRun([], ["--method", "magic"]).waitUntilEnd().status == 64)
    }
}

/// One run of the demo. A mark in its environment identifies all processes that it started.
private final class DemoRun {
    struct End {
        let status: Int32
        let output: String
        let errors: String
        let seconds: Double
    }

    static let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    static let hasTools = succeeds(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; command -v ip && command -v nft"])

    private let process = Process()
    private let mark = "SOCKALIVE_TEST=\(UUID().uuidString)"
    private let (output, errors) = (Pipe(), Pipe())
    private var heard = Data()
    private let start = Date()

    private static var program: String {
        Bundle.main.bundleURL.appendingPathComponent("sockalive").path
    }

    var pid: Int32 { process.processIdentifier }

    /// - Parameter wrapper: a command that runs the program.
    init(
        _ wrapper: [String] = [], _ options: [String] = [], command: String = "demo",
        environment: [String: String] = [:]
    ) throws {
        let words = ["env", mark] + wrapper + [Self.program]
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words.dropFirst() + (wrapper.first == "sh" ? [] : [command] + options)
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardOutput = output
        process.standardError = errors
        try process.run()
    }

    /// Whether `text` appears in the output.
    func reads(until text: String) -> Bool {
        while heard.range(of: Data(text.utf8)) == nil {
            let more = output.fileHandleForReading.availableData
            if more.isEmpty { return false }
            heard += more
        }
        return true
    }

    /// Waits for the end: the exit code, or the signal that ended the process.
    func waitUntilEnd() -> End {
        heard += output.fileHandleForReading.readDataToEndOfFile()
        let errors = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return End(
            status: process.terminationStatus, output: String(decoding: heard, as: UTF8.self),
            errors: String(decoding: errors, as: UTF8.self), seconds: Date().timeIntervalSince(start))
    }

    /// The processes that still have the mark after `timeout` seconds.
    func leftProcesses(timeout: Double = 0) -> [String] {
        let deadline = Date() + timeout
        while true {
            let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
            let left = entries.filter { Int($0) != nil && environment(of: $0).range(of: Data(mark.utf8)) != nil }
            if left.isEmpty || Date() >= deadline { return left }
            usleep(20_000)
        }
    }

    private func environment(of pid: String) -> Data {
        FileManager.default.contents(atPath: "/proc/\(pid)/environ") ?? Data()
    }

    /// Whether namespaces can be made: unshare(1) tests it, not the program under test.
    static func works(as wrapper: [String] = []) -> Bool {
        let user = wrapper.isEmpty && geteuid() == 0 ? [] : ["--user", "--map-root-user"]
        return succeeds(wrapper + ["test", "-x", program])
            && succeeds(wrapper + ["unshare"] + user + ["--net", "--pid", "--fork", "--mount-proc", "true"])
    }

    private static func succeeds(_ words: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
