/// Which processes are meant.
package struct ProcessSelection: Hashable, Sendable {
    /// Matched against comm, or the base name of the executable; whole and exact.
    package var names: [UntrustedText]
    package var pids: Set<Int32>
    package var anyProcess: Bool
    /// Only processes whose executable is exactly this path.
    package var executable: String?
    /// Only processes whose real, effective and saved user all are this one: somebody who starts a set-user-ID
    /// program under the name that is looked for stays its real user.
    package var uid: UInt32?
    /// Only processes that run there.
    package var places: PlaceSelection
    /// Only processes that have one of these among their arguments, whole, or as the base name of one. It is the
    /// process's own word: anybody can write a command line.
    package var commands: [UntrustedText]
    /// It means none at all: the beginning of a union.
    fileprivate(set) var isEmpty = false

    package init(
        names: [String] = [], pids: Set<Int32> = [], anyProcess: Bool = false,
        executable: String? = nil, uid: UInt32? = nil, places: PlaceSelection = PlaceSelection(),
        commands: [String] = []
    ) {
        self.names = names.map { UntrustedText($0) }
        self.pids = pids
        self.anyProcess = anyProcess
        self.executable = executable
        self.uid = uid
        self.places = places
        self.commands = commands.map { UntrustedText($0) }
    }

    static let nobody: ProcessSelection = {
        var selection = ProcessSelection()
        selection.isEmpty = true
        return selection
    }()

    /// No name and no number selects: what else is asked selects by itself.
    var isByFilter: Bool {
        names.isEmpty && pids.isEmpty && !anyProcess
            && (executable != nil || !places.isEmpty || !commands.isEmpty)
    }
}

/// Which of their sockets are meant.
package struct SocketSelection: Equatable, Sendable {
    /// Local or remote port; nil is every port.
    package var ports: Set<UInt16>?
    /// Where the peer's address lies; nil is everywhere.
    package var remote: AddressRange?
    /// Also LISTEN sockets: what they accept from then on inherits their keepalive.
    package var listeners: Bool
    /// Also connections of which one direction is closed.
    package var halfClosed: Bool

    package init(
        ports: Set<UInt16>?, remote: AddressRange? = nil, listeners: Bool = false, halfClosed: Bool = false
    ) {
        self.ports = ports
        self.remote = remote
        self.listeners = listeners
        self.halfClosed = halfClosed
    }

    var states: Set<SocketRow.State> {
        Set([.established] + (halfClosed ? [.finWait2, .closeWait] : []) + (listeners ? [.listen] : []))
    }

    /// The part of the question that state and ports answer.
    func accepts(state: SocketRow.State, localPort: UInt16, remotePort: UInt16) -> Bool {
        switch state {
        case .finWait2, .closeWait: guard halfClosed else { return false }
        case .listen: guard listeners else { return false }
        case .established: break
        }
        return ports.map { $0.contains(localPort) || (state.hasPeer && $0.contains(remotePort)) } ?? true
    }

    /// The part that needs the peer's address; a listener has no peer. nil if only its interface could tell, and nobody
    /// told it.
    func acceptsPeer(of row: SocketRow) -> Bool? {
        guard let remote, row.state.hasPeer else { return true }
        return remote.contains(row.remote.address, on: row.interface)
    }

    /// What cannot be told is no "no".
    func accepts(_ row: SocketRow) -> Bool { acceptsPeer(of: row) ?? true }

    /// Everything that the row alone can answer.
    func accepts(wholly row: SocketRow) -> Bool {
        accepts(state: row.state, localPort: row.local.port, remotePort: row.remote.port) && accepts(row)
    }
}

/// Everything that discovery is asked for.
package struct Selection: Equatable, Sendable {
    package var processes: ProcessSelection
    package var sockets: SocketSelection
    /// Of a union: more selections that may mean a process. Places and arguments have nothing in common that would be a
    /// filter, and what every process is asked for costs.
    private(set) var others: [ProcessSelection] = []

    package init(processes: ProcessSelection, sockets: SocketSelection) {
        self.processes = processes
        self.sockets = sockets
    }

    /// Each of these may mean a process.
    var alternatives: [ProcessSelection] { (processes.isEmpty ? [] : [processes]) + others }

    /// Finds all that any of the selections may mean; of one, exactly that.
    init(unionOf selections: [Selection]) {
        precondition(!selections.isEmpty)
        guard selections.count > 1 else {
            self = selections[0]
            return
        }
        processes = .nobody
        sockets = selections[0].sockets
        var seen: Set<ProcessSelection> = []
        for selection in selections {
            sockets.formUnion(selection.sockets)
            if selection.processes.places.isEmpty && selection.processes.commands.isEmpty {
                processes.formUnion(selection.processes)
            } else if seen.insert(selection.processes).inserted {
                others.append(selection.processes)
            }
        }
        processes.removeRepeatedNames()
    }
}

/// One selection that finds at least what two find. What the two share stays a filter.
///
/// In place: with ten thousand rules, a copy of all names for each rule would take seconds.
extension ProcessSelection {
    fileprivate mutating func formUnion(_ other: ProcessSelection) {
        if isEmpty {
            self = other
            return
        }
        let isForAll = anyProcess || other.anyProcess
        // Neither names nor numbers: the executable alone selects, and it selects among all.
        let isByFile = isByFilter || other.isByFilter
        let executable = executable == other.executable ? executable : nil
        let all = isForAll || (isByFile && !(isByFilter && other.isByFilter && executable != nil))
        if all {
            names = []
            pids = []
        } else {
            names += other.names
            pids.formUnion(other.pids)
        }
        anyProcess = all
        self.executable = executable
        uid = uid == other.uid ? uid : nil
    }

    /// A union has a name as often as it was given.
    fileprivate mutating func removeRepeatedNames() {
        var seen: Set<UntrustedText> = []
        names.removeAll { !seen.insert($0).inserted }
    }
}

extension SocketSelection {
    fileprivate mutating func formUnion(_ other: SocketSelection) {
        if let others = other.ports { ports?.formUnion(others) } else { ports = nil }
        remote = remote == other.remote ? remote : nil
        listeners = listeners || other.listeners
        halfClosed = halfClosed || other.halfClosed
    }
}
