import SystemPackage

/// A text that a worker makes, such as the doctor's report.
package struct SupervisedText {
    private let control: RunControl
    private let limit: Seconds
    private let before: Set<HungProcess>

    /// - Parameter before: processes that hung in the last run, some of which are not looked at again.
    package init(control: RunControl, limit: Seconds, before: Set<HungProcess> = []) {
        self.control = control
        self.limit = limit
        self.before = before
    }

    /// What the next worker is to leave out.
    package struct Hangs {
        /// Processes that hung before, and why they are left out.
        package var processes: [Int32: SocketFailure] = [:]
        /// The only source to ask for sockets, where another has hung.
        package var source: SocketSource?
        /// Links to executables hang: names are compared with comm alone.
        package var isByComm = false

        /// - Returns: false where nothing can be left out, so that another worker would hang, too.
        fileprivate mutating func add(_ position: WorkerPosition, _ leftBehind: Int32?) -> Bool {
            if position.pid != 0 && processes[position.pid] == nil {
                processes[position.pid] = .hung(position, leftBehind: leftBehind)
            } else if position.step == .processNames && !position.scanned.isEmpty {
                isByComm = true
                for pid in position.scanned {
                    processes[pid] = .hung(WorkerPosition(step: .executable, pid: pid), leftBehind: nil)
                }
            } else if position.step == .socketTable && source == nil {
                // It waits for no lock of a socket.
                source = .procfs
            } else {
                return false
            }
            return true
        }
    }

    /// - Parameter work: makes the text in a worker.
    package func text(_ work: (Hangs) -> String) throws(SearchError) -> String {
        var hangs = Hangs(processes: knownHangs)
        hangs.isByComm = before.contains(where: \.isRecent)
        while true {
            var text: String?
            let exit: Supervisor.Exit
            do {
                exit = try Supervisor(control: control, limit: limit).run(
                    { output in
                        var writer = WireWriter()
                        let text = work(hangs)
                        writer.frame { $0.write(text) }
                        output.write(writer.bytes)
                    },
                    receive: { bytes in text = try Self.text(bytes) ?? text })
            } catch let error as Errno {
                throw .noWorker(error)
            } catch {
                throw .workerFailed(.none)
            }
            if let text { return text }
            if let reason = control.stopReason { throw .stopped(reason) }
            switch exit {
            case .hung(let new):
                for hang in new where !hangs.add(hang.position, hang.leftBehind) {
                    throw .workerFailed(hang.position.step)
                }
            case .stopped(let reason, _): throw .stopped(reason)
            case .lost(let position, _): throw .workerFailed(position.step)
            case .done: throw .workerFailed(.none)
            }
        }
    }

    /// Where a worker was left behind, and where a link hung not long ago.
    private var knownHangs: [Int32: SocketFailure] {
        var hangs: [Int32: SocketFailure] = [:]
        for process in before where process.pid != 0 {
            if let worker = process.leftBehind, worker.isAlive {
                hangs[process.pid] = .hung(WorkerPosition(step: worker.step, pid: process.pid), leftBehind: worker.pid)
            } else if process.isRecent {
                hangs[process.pid] = .hung(WorkerPosition(step: .executable, pid: process.pid), leftBehind: nil)
            }
        }
        return hangs
    }

    private static func text(_ bytes: [UInt8]) throws -> String? {
        try bytes.withUnsafeBytes { raw in
            var reader = WireReader(raw)
            guard var frame = try reader.nextFrame() else { return nil }
            return try frame.readText()
        }
    }
}
