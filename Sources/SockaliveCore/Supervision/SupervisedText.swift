import SystemPackage

/// A text that a worker makes, such as the doctor's report.
package struct SupervisedText {
    private let control: RunControl
    private let limit: Seconds

    package init(control: RunControl, limit: Seconds) {
        self.control = control
        self.limit = limit
    }

    /// - Parameter work: makes the text in a worker. It is given the processes that hung before, and why they are left
    ///   out; and the only source to ask for sockets, where another has hung.
    package func text(_ work: ([Int32: SocketFailure], SocketSource?) -> String) throws(SearchError) -> String {
        var hung: [Int32: SocketFailure] = [:]
        var source: SocketSource?
        while true {
            var text: String?
            let exit: Supervisor.Exit
            do {
                exit = try Supervisor(control: control, limit: limit).run(
                    { output in
                        var writer = WireWriter()
                        let text = work(hung, source)
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
            case .hung(let position, let leftBehind) where position.pid != 0 && hung[position.pid] == nil:
                hung[position.pid] = .hung(position, leftBehind: leftBehind)
            case .hung(let position, _) where position.step == .processNames && !position.scanned.isEmpty:
                for pid in position.scanned {
                    hung[pid] = .hung(WorkerPosition(step: .executable, pid: pid), leftBehind: nil)
                }
            case .hung(let position, _) where position.step == .socketTable && source == nil:
                // It waits for no lock of a socket.
                source = .procfs
            case .stopped(let reason, _, _): throw .stopped(reason)
            case .hung(let position, _), .lost(let position, _): throw .workerFailed(position.step)
            case .done: throw .workerFailed(.none)
            }
        }
    }

    private static func text(_ bytes: [UInt8]) throws -> String? {
        try bytes.withUnsafeBytes { raw in
            var reader = WireReader(raw)
            guard var frame = try reader.nextFrame() else { return nil }
            return try frame.readText()
        }
    }
}
