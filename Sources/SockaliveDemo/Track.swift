/// The course of one session while it is idle, as the firewall saw it.
struct Track {
    /// One stretch of time on the line.
    enum Cell: Equatable {
        case held, probe, death, dead
    }

    let session: DemoSession
    private(set) var cells: [Cell] = []
    private(set) var probes = 0
    /// Seconds from the last packet of the conversation to the last probe, to now, and to the firewall's forgetting.
    private(set) var lastPacket = 0.0
    private(set) var now = 0.0
    private(set) var forgotten: Double?

    private let secondsPerCell: Double
    private let passedBefore: Int

    init(session: DemoSession, cells: Int, view: Firewall.View) {
        self.session = session
        secondsPerCell = Double(DemoSettings.idle) / Double(cells)
        passedBefore = view.passed
    }

    /// How long the firewall has seen nothing of this session.
    var silence: Double { now - lastPacket }

    /// Takes in what the firewall shows `seconds` after the last packet of the conversation.
    mutating func advance(to seconds: Double, _ view: Firewall.View) {
        now = seconds
        let fresh = view.passed - passedBefore - probes
        probes += fresh
        if fresh > 0 { lastPacket = seconds }
        let remembered = view.remembered ?? (silence < Double(DemoSettings.firewallTimeout))
        let dies = !remembered && forgotten == nil
        if dies { forgotten = seconds }
        fill(to: Int(seconds / secondsPerCell), with: forgotten == nil ? .held : .dead)
        if dies { replaceLast(.death) } else if fresh > 0 { replaceLast(.probe) }
    }

    private mutating func fill(to count: Int, with cell: Cell) {
        while cells.count < count { cells.append(cell) }
    }

    private mutating func replaceLast(_ cell: Cell) {
        if cells.isEmpty { cells.append(cell) } else { cells[cells.count - 1] = cell }
    }
}
