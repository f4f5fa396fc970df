import SystemPackage

/// Something that a worker of a run tells its parent.
enum RunEvent {
    /// A search has ended, and all of its candidates were sent. So many processes match.
    case found(processes: Int, isLast: Bool)
    /// A process holds up the search, or has used up its time: it comes last, in the next run, too.
    case late(Int32)
    /// The candidates come in an order that ``result`` and ``armed`` refer to.
    ///
    /// - Parameter total: how many come from now on; these are the first of them.
    case candidates([AssignedSocket], total: Int)
    case result(index: Int, ResultRecord)
    /// Its owner has closed the socket.
    case gone(index: Int)
    /// A probe is about to change the socket; these were its settings.
    case armed(index: Int, KeepaliveSettings)
    case process(ProcessFailure)
    case progress(ProbeRun.Progress)
    case absence(AbsenceReason)
    case error(SearchError)
}

extension RunEvent {
    /// A target may stand still meanwhile.
    fileprivate var isDuringHold: Bool {
        if case .armed = self { true } else { false }
    }
}

/// A process that matches, and could not be looked at.
package struct ProcessFailure: Equatable, Sendable {
    package let pid: Int32
    /// nil where that may not be read.
    package let name: UntrustedText?
    package let failure: SocketFailure
}

/// Why the search for sockets could not be done at all.
package enum SearchError: Error {
    /// `/proc` shows another PID namespace.
    case foreignNamespace
    case stopped(StopReason)
    /// No process matches among those that are shown, and others are not shown.
    case hidden
    case source(SourceFailure)
    case proc(Errno)
    /// The kernel gives no process or no memory for the work.
    case noWorker(Errno)
    /// It hangs, or ends, and nobody knows which process is to blame.
    case workerFailed(WorkerStep)
}

/// Writes events as bytes.
struct RunEventWriter {
    let output: WorkerOutput
    private var lastProcess: (pid: Int32, startTime: UInt64)?
    private var lastRule: (number: Int, request: KeepaliveRequest)?
    /// Used again for each event.
    private var memory = WireWriter()

    /// Some 20 KiB.
    private static let candidatesInFrame = 64
    fileprivate static let resultKind: UInt8 = 2

    init(_ output: WorkerOutput) {
        self.output = output
    }

    mutating func send(_ event: RunEvent) {
        switch event {
        case .candidates(let candidates, _):
            for start in stride(from: 0, to: candidates.count, by: Self.candidatesInFrame) {
                let end = min(start + Self.candidatesInFrame, candidates.count)
                write { $0.encode(candidates, start..<end, into: &$1) }
            }
        // Twenty thousand results are written one by one, and other threads wait meanwhile.
        case .result(let index, let record) where record.failure == nil:
            withFrame(Self.resultKind, ResultNumbers(index, record)) { output.write($0) }
        default: write(event)
        }
    }

    private mutating func write(_ event: RunEvent) {
        write(mayWait: !event.isDuringHold) { $0.encode(event, into: &$1) }
    }

    private mutating func write(mayWait: Bool = true, _ encode: (inout RunEventWriter, inout WireWriter) -> Void) {
        var writer = WireWriter()
        swap(&writer, &memory)
        writer.removeAll()
        writer.frame { encode(&self, &$0) }
        output.write(writer.bytes, mayWait: mayWait)
        swap(&writer, &memory)
    }

    /// By their numbers: a loop over the candidates themselves would copy each.
    private mutating func encode(_ candidates: [AssignedSocket], _ range: Range<Int>, into writer: inout WireWriter) {
        writer.write(UInt8(1))
        writer.write(Int32(clamping: candidates.count - range.lowerBound))
        writer.write(Int32(range.count))
        for index in range { encode(candidates[index], into: &writer) }
    }

    /// Many sockets belong to one process, and count to one rule: its names, and the rule's request, are sent once.
    private mutating func encode(_ candidate: AssignedSocket, into writer: inout WireWriter) {
        let (socket, process) = (candidate.socket, candidate.socket.process)
        let numbers = CandidateNumbers(
            candidate,
            isOfLastProcess: lastProcess.map { $0 == (process.pid, process.startTime) } ?? false,
            isOfLastRule: lastRule.map { $0 == (candidate.rule, candidate.request) } ?? false)
        writer.write(numbers)
        if !numbers.isOfLastProcess {
            process.write(into: &writer)
            lastProcess = (process.pid, process.startTime)
        }
        if !numbers.isOfLastRule {
            writer.write(Int32(clamping: candidate.rule))
            writer.write(candidate.request)
            lastRule = (candidate.rule, candidate.request)
        }
        if numbers.hasOtherHolders { writer.write(socket.holders) }
    }

    private mutating func encode(_ event: RunEvent, into writer: inout WireWriter) {
        switch event {
        case .found(let processes, let isLast):
            writer.write(UInt8(0))
            writer.write(processes)
            writer.write(isLast)
        case .late(let pid):
            writer.write(UInt8(9))
            writer.write(pid)
        case .candidates(let candidates, _): encode(candidates, candidates.indices, into: &writer)
        case .result(let index, let record):
            writer.write(Self.resultKind)
            writer.write(ResultNumbers(index, record))
            record.failure?.write(into: &writer)
        case .gone(let index):
            writer.write(UInt8(8))
            writer.write(Int32(index))
        case .armed(let index, let settings):
            writer.write(UInt8(3))
            writer.write(Int32(index))
            writer.write(settings)
        case .process(let process):
            writer.write(UInt8(4))
            writer.write(process.pid)
            writer.write(process.name) { $0.write($1.bytes) }
            process.failure.write(into: &writer)
        case .progress(let progress):
            writer.write(UInt8(5))
            writer.write(progress.candidates)
            writer.write(progress.answered)
        case .absence(let reason):
            writer.write(UInt8(6))
            for processes in [reason.idleProcesses, reason.otherOwners] {
                writer.write(Int32(processes.count))
                for process in processes { process.write(into: &writer) }
            }
            writer.write(Int32(reason.unheld.count))
            for unheld in reason.unheld {
                writer.write(unheld.row)
                writer.write(unheld.ringOwner) { writer, owner in
                    writer.write(owner.pid)
                    writer.write(owner.name) { $0.write($1.bytes) }
                }
            }
        case .error(let error):
            writer.write(UInt8(7))
            error.write(into: &writer)
        }
    }
}

/// What has one size of a candidate: it is written and read in one piece.
private struct CandidateNumbers: BitwiseCopyable {
    let isOfLastProcess, isOfLastRule, hasOtherHolders, sharesInode: Bool
    let holder: SocketHolder?
    let networkNamespace: UInt64?
    let row: SocketRow

    init(_ candidate: AssignedSocket, isOfLastProcess: Bool, isOfLastRule: Bool) {
        self.isOfLastProcess = isOfLastProcess
        self.isOfLastRule = isOfLastRule
        hasOtherHolders = candidate.socket.hasOtherHolders
        sharesInode = candidate.socket.sharesInode
        holder = candidate.socket.holder
        networkNamespace = candidate.socket.networkNamespace
        row = candidate.socket.row
    }
}

/// Reads the events of one worker.
struct RunEventReader {
    private var lastProcess: ProcessIdentity?
    private var lastRule: (number: Int, request: KeepaliveRequest)?

    /// Takes all whole events out of the bytes.
    mutating func read(_ bytes: inout [UInt8], _ body: (RunEvent) -> Void) throws {
        let used = try bytes.withUnsafeBytes { raw in
            var frames = WireReader(raw)
            while var frame = try frames.nextFrame() { body(try event(&frame)) }
            return frames.position
        }
        bytes.removeFirst(used)
    }

    private mutating func event(_ reader: inout WireReader) throws(WireReader.Malformed) -> RunEvent {
        switch try reader.read(UInt8.self) {
        case 0: return .found(processes: try reader.read(), isLast: try reader.read())
        case 1:
            let total = Int(try reader.read(Int32.self))
            var candidates: [AssignedSocket] = []
            for _ in 0..<max(0, try reader.read(Int32.self)) {
                candidates.append(try candidate(&reader))
            }
            return .candidates(candidates, total: total)
        case RunEventWriter.resultKind:
            let numbers: ResultNumbers = try reader.read()
            let failure = numbers.hasFailure ? try SocketFailure(&reader) : nil
            return .result(index: Int(numbers.index), ResultRecord(numbers: numbers.numbers, failure: failure))
        case 3: return .armed(index: Int(try reader.read(Int32.self)), try reader.read())
        case 4:
            let pid = try reader.read(Int32.self)
            let name = try reader.readOptional { reader throws(WireReader.Malformed) in
                UntrustedText(try reader.readBytes())
            }
            return .process(ProcessFailure(pid: pid, name: name, failure: try SocketFailure(&reader)))
        case 5: return .progress(ProbeRun.Progress(candidates: try reader.read(), answered: try reader.read()))
        case 6:
            return .absence(
                AbsenceReason(
                    idleProcesses: try processes(&reader), otherOwners: try processes(&reader),
                    unheld: try unheld(&reader)))
        case 8: return .gone(index: Int(try reader.read(Int32.self)))
        case 9: return .late(try reader.read())
        case 7: return .error(try SearchError(&reader))
        default: throw WireReader.Malformed()
        }
    }

    private mutating func candidate(_ reader: inout WireReader) throws(WireReader.Malformed) -> AssignedSocket {
        let numbers: CandidateNumbers = try reader.read()
        if !numbers.isOfLastProcess { lastProcess = try ProcessIdentity(&reader) }
        if !numbers.isOfLastRule {
            lastRule = (number: Int(try reader.read(Int32.self)), request: try reader.read(KeepaliveRequest.self))
        }
        guard let lastProcess, let lastRule else { throw WireReader.Malformed() }
        let holders: [SocketHolder] = numbers.hasOtherHolders ? try reader.readArray() : []
        let socket = DiscoveredSocket(
            process: lastProcess, holder: numbers.holder, others: Array(holders.dropFirst()), row: numbers.row,
            sharesInode: numbers.sharesInode, networkNamespace: numbers.networkNamespace)
        return AssignedSocket(socket: socket, request: lastRule.request, rule: lastRule.number)
    }

    private func processes(_ reader: inout WireReader) throws(WireReader.Malformed) -> [ProcessIdentity] {
        var processes: [ProcessIdentity] = []
        for _ in 0..<max(0, try reader.read(Int32.self)) { processes.append(try ProcessIdentity(&reader)) }
        return processes
    }

    private func unheld(_ reader: inout WireReader) throws(WireReader.Malformed) -> [AbsenceReason.Unheld] {
        var unheld: [AbsenceReason.Unheld] = []
        for _ in 0..<max(0, try reader.read(Int32.self)) {
            let row: SocketRow = try reader.read()
            let owner = try reader.readOptional { reader throws(WireReader.Malformed) in
                AbsenceReason.Process(
                    pid: try reader.read(),
                    name: try reader.readOptional { reader throws(WireReader.Malformed) in
                        UntrustedText(try reader.readBytes())
                    })
            }
            unheld.append(AbsenceReason.Unheld(row: row, ringOwner: owner))
        }
        return unheld
    }
}

/// What became of a socket, without the socket itself and what it needs.
struct ResultRecord {
    fileprivate struct Numbers: BitwiseCopyable {
        let action: SocketAction
        let before, after, planned: KeepaliveSettings?
        let idleSeconds: Double?
        let method: Method?
        let crashSafe: Bool?
        let rights: Rights?
        let pausedMicroseconds: Int
        let probe: ProbeAnswer?
        let subflowDiffers: Bool
        let settingsSource: SettingsSource
        let restartedWait: RestartedWait?
    }

    fileprivate let numbers: Numbers
    fileprivate let failure: SocketFailure?

    init(_ result: SocketResult) {
        numbers = Numbers(
            action: result.action, before: result.before, after: result.after, planned: result.planned,
            idleSeconds: result.idleSeconds, method: result.method, crashSafe: result.crashSafe,
            rights: result.rights, pausedMicroseconds: result.pausedMicroseconds, probe: result.probe,
            subflowDiffers: result.subflowDiffers, settingsSource: result.settingsSource,
            restartedWait: result.restartedWait)
        failure = result.failure
    }

    fileprivate init(numbers: Numbers, failure: SocketFailure?) {
        self.numbers = numbers
        self.failure = failure
    }
}

/// The part of ``RunEvent/result(index:_:)`` that always has the same size.
private struct ResultNumbers: BitwiseCopyable {
    let index: Int32
    let hasFailure: Bool
    let numbers: ResultRecord.Numbers

    init(_ index: Int, _ record: ResultRecord) {
        self.index = Int32(index)
        hasFailure = record.failure != nil
        numbers = record.numbers
    }
}

extension SocketResult {
    /// What became of the socket by now.
    mutating func take(_ record: ResultRecord) {
        let numbers = record.numbers
        action = numbers.action
        (before, after, planned) = (numbers.before, numbers.after, numbers.planned)
        idleSeconds = numbers.idleSeconds
        (method, rights) = (numbers.method, numbers.rights)
        crashSafe = numbers.crashSafe
        pausedMicroseconds = numbers.pausedMicroseconds
        failure = record.failure
        probe = numbers.probe
        subflowDiffers = numbers.subflowDiffers
        settingsSource = numbers.settingsSource
        restartedWait = numbers.restartedWait
    }
}
