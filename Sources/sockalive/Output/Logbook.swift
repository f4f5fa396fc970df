import SockaliveCore
import SystemPackage

/// Tells the system log what changed and what failed, the same failure once and then hourly.
struct Logbook {
    private let log = SystemLog()
    private let reporter: Reporter
    /// Where the failures that have been told are kept from run to run; nil where no folder is for that.
    private let memoryFile: String?

    /// nil if no log is wanted.
    init?(_ limits: RunOptions, _ reporter: Reporter) {
        guard limits.syslog else { return nil }
        self.reporter = reporter
        memoryFile = (limits.lock ?? HeldLock.defaultPath).map(Self.memoryFile)
    }

    /// Beside the lock that guards it: `/run/sockalive.lock`, `/run/sockalive.failures`.
    private static func memoryFile(beside lock: String) -> String {
        let suffix = ".lock"
        return (lock.hasSuffix(suffix) ? String(lock.dropLast(suffix.count)) : lock) + ".failures"
    }

    func write(_ results: [SocketResult]) {
        remembering { log.write(results, &$0) }
    }

    /// Why a run could not do its work at all.
    func write(_ error: RunError) {
        remembering { memory in
            guard memory.isNews(runFailure: "EXIT\(error.status.rawValue)") else { return }
            log.write(LogLine(failure: error.line))
            if log.error != nil { memory.forgetRun() }
        }
    }

    private func remembering(_ body: (inout FailureMemory) -> Void) {
        let remembered = memoryFile.map { FailureMemory(file: $0) } ?? FailureMemory()
        var memory = remembered
        body(&memory)
        if let error = log.error { reporter.message(Self.complaint(error)) }
        if memory != remembered { save(memory) }
    }

    static func complaint(_ error: Errno) -> String {
        "the system log takes no lines (\(error)): is a syslog daemon behind /dev/log?"
    }

    private func save(_ memory: FailureMemory) {
        guard let memoryFile else { return }
        do throws(Errno) {
            try memory.save(to: memoryFile)
        } catch {
            reporter.step("\(ForeignText(memoryFile).escaped) cannot be written (\(error)): failures are logged again")
        }
    }
}
