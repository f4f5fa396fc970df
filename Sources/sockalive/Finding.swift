import SockaliveCore
import SystemPackage

/// What there is to work on: this machine's `/proc`, and the sockets that were found through it.
struct Finding {
    let procfs: ProcFS
    let discovery: Discovery
    let snapshot: Snapshot

    init(_ configuration: RunConfiguration, _ control: RunControl) throws(RunError) {
        OpenFiles.raiseLimit()
        do {
            procfs = try ProcFS()
            guard procfs.isOwn else { throw RunError.foreignNamespace }
            discovery = Discovery(procfs: procfs, source: configuration.source, method: configuration.method.resolved())
            snapshot = try discovery.snapshot(of: configuration.rules.union, stopReason: { control.stopReason })
        } catch {
            throw RunError(error)
        }
    }
}

/// Why a run cannot do its work at all, with what to do about it.
struct RunError: Error {
    let line: String
    let status: RunStatus

    static let foreignNamespace = RunError(
        line: "/proc shows another PID namespace: mount this one's, or join that one (nsenter -p)",
        status: .unsupported)

    static let noProc = RunError(Errno.noSuchFileOrDirectory)

    init(line: String, status: RunStatus) {
        self.line = line
        self.status = status
    }

    /// Prints why, for a run that ends by it.
    func printed() -> RunStatus {
        StandardStreams.error(line)
        return status
    }

    fileprivate init(_ error: any Error) {
        switch error {
        case let runError as RunError: self = runError
        case let reason as StopReason: self.init(line: reason.searchLine, status: .someFailed)
        case let failure as SourceFailure:
            self.init(line: failure.line, status: failure.isPermission ? .noPermission : .unsupported)
        case Errno.tooManyOpenFiles:
            self.init(
                line: "more processes match than this one may open files: raise the limit (ulimit -Hn), "
                    + "or name the processes more exactly with --user or --pid",
                status: .someFailed)
        default:
            self.init(
                line: "/proc cannot be read (\(error)): mount it, or run where it is mounted", status: .unsupported)
        }
    }
}
