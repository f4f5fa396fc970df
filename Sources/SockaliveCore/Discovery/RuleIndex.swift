import Glibc

/// Looks up the rules that mean a socket.
///
/// A file may have ten thousand rules, and a host may have twenty thousand sockets. So there is a list of rules for each
/// port, for each peer, and for each process; of the three lists that hold every rule of a socket, the shortest is
/// walked.
struct RuleIndex {
    /// The process selections of the rules, each once.
    let processes: [ProcessSelection]

    private let rules: [Rule]
    /// For each rule its place in `processes`, and the reverse.
    private let processesOfRule: [Int]
    private let rulesOfProcesses: [[Int]]
    private var byPort = Lists<UInt16>()
    private var byPeer = Lists<IPAddress>()

    init(_ rules: [Rule]) {
        self.rules = rules
        var places: [ProcessSelection: Int] = [:]
        var (processes, processesOfRule, rulesOfProcesses): ([ProcessSelection], [Int], [[Int]]) = ([], [], [])
        for (number, rule) in rules.enumerated() {
            let place = places[rule.selection.processes] ?? processes.count
            if place == processes.count {
                places[rule.selection.processes] = place
                processes.append(rule.selection.processes)
                rulesOfProcesses.append([])
            }
            processesOfRule.append(place)
            rulesOfProcesses[place].append(number)
        }
        (self.processes, self.processesOfRule, self.rulesOfProcesses) = (processes, processesOfRule, rulesOfProcesses)
        for (number, rule) in rules.enumerated() {
            let sockets = rule.selection.sockets
            byPort.add(number, under: sockets.ports.map(Array.init))
            byPeer.add(number, under: sockets.remote?.onlyAddress.map { [$0] })
        }
    }

    /// The rules that mean the socket, ascending.
    ///
    /// - Parameter matching: the places in `processes` of those that mean a process.
    func rules(for socket: DiscoveredSocket, matching: (Int32) -> Set<Int>) -> [Int] {
        let row = socket.row
        let places = Self.places(of: socket, matching)
        var shortest = places.map { rulesOfProcesses[$0] }
        for lists in [byPort.lists(for: [row.local.port, row.remote.port]), peerLists(for: row)] {
            if Self.count(lists) < Self.count(shortest) { shortest = lists }
        }
        let meant = shortest.joined().filter { number in
            places.contains(processesOfRule[number]) && rules[number].selection.sockets.accepts(wholly: row)
        }
        return Set(meant).sorted()
    }

    /// If the holders cannot be read, the socket is attributed to the process it was found with.
    private static func places(of socket: DiscoveredSocket, _ matching: (Int32) -> Set<Int>) -> Set<Int> {
        guard let first = socket.holder else { return matching(socket.process.pid) }
        var places = matching(first.pid)
        for pid in Set(socket.holders.dropFirst().map(\.pid)) where pid != first.pid { places.formUnion(matching(pid)) }
        return places
    }

    /// A listener has no peer: every rule may mean it.
    private func peerLists(for row: SocketRow) -> [[Int]] {
        row.state.hasPeer ? byPeer.lists(for: [row.remote.address.unmapped]) : [Array(rules.indices)]
    }

    private static func count(_ lists: [[Int]]) -> Int { lists.reduce(0) { $0 + $1.count } }

    /// Numbers of rules by a key. A rule without keys is in the list that belongs to every key.
    private struct Lists<Key: Hashable> {
        private var keyed: [Key: [Int]] = [:]
        private var general: [Int] = []

        mutating func add(_ number: Int, under keys: [Key]?) {
            guard let keys else { return general.append(number) }
            for key in keys { keyed[key, default: []].append(number) }
        }

        func lists(for keys: [Key]) -> [[Int]] { keys.compactMap { keyed[$0] } + [general] }
    }
}

extension AddressRange {
    /// The address, where the range has no other.
    fileprivate var onlyAddress: IPAddress? {
        prefixLength == (base.family == .ipv4 ? 32 : 128) ? base : nil
    }
}

/// Asks `/proc` once for each process which selections match it.
final class ProcessMatcher {
    private let procfs: ProcFS
    private let limits: ProcessLimits
    private let finders: [ProcessFinder]
    private var byName: [UntrustedText: [Int]] = [:]
    private var byPID: [Int32: [Int]] = [:]
    private var byExecutable: [UntrustedText: [Int]] = [:]
    /// What no name, number or file singles out.
    private var general: [Int] = []
    private var byUnit: [UnitName: [Int]] = [:]
    private let places: ProcessPlaces
    private var answers: [Int32: Set<Int>] = [:]
    /// Why nobody knows whether some selection matches a process.
    private(set) var unknown: [Int32: UnansweredProcess.Reason] = [:]

    init(_ selections: [ProcessSelection], _ procfs: ProcFS, _ limits: ProcessLimits, _ places: ProcessPlaces) {
        self.procfs = procfs
        self.limits = limits
        self.places = places
        finders = selections.map { ProcessFinder(procfs: procfs, selection: $0, limits: limits, places: places) }
        for (place, finder) in finders.enumerated() {
            let selection = finder.selection
            if selection.executable != nil {
                for path in finder.wantedPaths { byExecutable[UntrustedText(path), default: []].append(place) }
            } else if !selection.places.units.isEmpty {
                for unit in selection.places.units { byUnit[unit, default: []].append(place) }
            } else if selection.anyProcess || selection.isByFilter {
                general.append(place)
            } else {
                for name in selection.names { byName[name, default: []].append(place) }
                for pid in selection.pids { byPID[pid, default: []].append(place) }
            }
        }
    }

    /// The places of the selections that match the process.
    func matching(_ pid: Int32) -> Set<Int> {
        if let answer = answers[pid] { return answer }
        let answer = (candidates(pid) ?? Set(finders.indices)).filter { place in
            switch finders[place].match(pid) {
            case .no: return false
            case .yes: return true
            case .unknown(let reason):
                unknown[pid] = reason
                return false
            }
        }
        answers[pid] = answer
        return answer
    }

    /// Those that match it, and some that may not: `ProcessFinder` judges. nil if the process does not tell what it goes
    /// by; then none is left out.
    private func candidates(_ pid: Int32) -> Set<Int>? {
        var places = Set(general + byPID[pid, default: []])
        if !byUnit.isEmpty {
            guard let path = try? self.places.path(of: pid) else { return nil }
            if let unit = path.unit { places.formUnion(byUnit[unit.value, default: []]) }
        }
        if byName.isEmpty && byExecutable.isEmpty { return places }
        // The link to an executable that hung is not read again.
        guard !limits.hungExecutables.contains(pid) else { return nil }
        // What hangs here is known by it.
        WorkerProgress.enter(.executable, pid)
        guard let comm = procfs.text("\(pid)/comm")?.dropLast(), let link = try? procfs.link("\(pid)/exe") else {
            return nil
        }
        let path = link.withoutDeletedSuffix
        for path in [link[...], path] { places.formUnion(byExecutable[UntrustedText(path), default: []]) }
        for name in [comm, path.baseName] { places.formUnion(byName[UntrustedText(name), default: []]) }
        // The name of a script, or of a program that the dynamic loader was told to run, is among the arguments.
        guard comm.count == CommScan.maxCommLength || path.baseName.isLoader else { return places }
        guard let arguments = try? procfs.prefix(of: "\(pid)/cmdline", count: Int(PATH_MAX)) else { return nil }
        for argument in arguments.split(separator: 0) {
            for name in [argument, argument.baseName] { places.formUnion(byName[UntrustedText(name), default: []]) }
        }
        return places
    }
}
