import Glibc
import SockaliveCore

/// Shows both sessions while they are idle. A terminal gets a growing line for each session; another output gets one
/// line a second.
struct Timeline {
    private let screen: Screen?
    private let firewall: Firewall
    private let start: ContinuousClock.Instant
    private let style: TimelineStyle
    private var tracks: [Track]

    /// - Parameters:
    ///   - screen: the output; nil prints nothing.
    ///   - start: the time of the last packet of the message exchange.
    init(screen: Screen?, firewall: Firewall, since start: ContinuousClock.Instant) throws {
        self.screen = screen
        self.firewall = firewall
        self.start = start
        style = TimelineStyle(screen: screen)
        let views = try firewall.views()
        tracks = DemoSession.allCases.map { [cells = style.cells] in
            Track(session: $0, cells: cells, view: views[$0] ?? .init())
        }
    }

    /// Waits until the idle time ends, and returns the tracks.
    mutating func run() throws -> [Track] {
        var second = 0
        try show(style.isLive ? style.header + tracks.map(style.row) : [])
        while second < DemoSettings.idle {
            usleep(250_000)
            let now = (.now - start) / .seconds(1)
            let views = try firewall.views()
            for index in tracks.indices {
                tracks[index].advance(to: now, views[tracks[index].session] ?? .init())
            }
            let turned = Int(now) > second
            second = Int(now)
            if style.isLive { try show([style.backToTop + style.row(tracks[0])] + tracks.dropFirst().map(style.row)) }
            if !style.isLive && turned { try show([style.line(tracks)]) }
        }
        return tracks
    }

    private func show(_ lines: [String]) throws {
        try screen?.write(lines.map { $0 + "\n" }.joined())
    }
}

/// The history of one idle session, as the firewall sees it.
struct Track {
    /// One cell of the line, for a piece of time.
    enum Cell: Equatable {
        case held, probe, death, dead
    }

    let session: DemoSession
    private(set) var cells: [Cell] = []
    private(set) var probes = 0
    /// Seconds since the last packet of the message exchange: up to the last probe, up to now, and up to the removal
    /// from the firewall's table.
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

    /// Seconds since the firewall last saw a packet of this session.
    var silence: Double { now - lastPacket }

    /// Adds the firewall's state `seconds` after the last packet of the message exchange.
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

/// The layout of the timeline. With 100 columns a row is:
///
///     192.0.2.1  injected    ━━━━╋━━━╋━━━━╋━━━              3       ████░░░░░░ 2.0s of 5s
struct TimelineStyle {
    private let screen: Screen?
    /// The number of cells for the whole idle time.
    let cells: Int
    /// Whether rows are redrawn in place.
    let isLive: Bool

    /// Columns beside the bar. Before it: address and name. After it: a gap, probes, gauge, text, and one free column.
    private static let besides = 24 + 3 + 8 + Gauge.width + 1 + 10 + 1
    private static let minCells = DemoSettings.idle

    init(screen: Screen?) {
        self.screen = screen
        let room = (screen?.columns ?? 0) - Self.besides
        cells = min(4 * DemoSettings.idle, max(room, Self.minCells))
        isLive = screen?.isTerminal == true && room >= Self.minCells
    }

    /// Moves the cursor up to the first row.
    var backToTop: String { TextStyle.cursorUp(DemoSession.allCases.count) }

    var header: [String] {
        var axis = [Character](repeating: " ", count: cells + 1)
        for second in 0...DemoSettings.idle {
            axis[second * cells / DemoSettings.idle] = Character("\(second % 10)")
        }
        let names = "SESSION".padded(11) + "KEEPALIVE".padded(13)
        return [paint(names + String(axis) + "s PROBES  FIREWALL'S CLOCK", .dim)]
    }

    func row(_ track: Track) -> String {
        let names = track.session.address.padded(11) + "\(track.session)".padded(13)
        let blank = String(repeating: " ", count: max(0, cells - track.cells.count))
        let probes = (track.probes == 0 ? "none" : "\(track.probes)").padded(8)
        let bar = track.cells.prefix(cells).map(glyph).joined() + blank
        return "\(names)\(bar)   \(probes)\(clock(track))" + TextStyle.eraseToEnd
    }

    private func glyph(_ cell: Track.Cell) -> String {
        switch cell {
        case .held: paint("━", .green)
        case .probe: paint("╋", .green)
        case .death: paint("╳", .red)
        case .dead: paint("┄", .red)
        }
    }

    /// The firewall's idle time against its timeout.
    private func clock(_ track: Track) -> String {
        let timeout = Double(DemoSettings.firewallTimeout)
        let share = track.forgotten == nil ? min(track.silence / timeout, 1) : 1
        let gauge = Gauge.bars[Int((share * Double(Gauge.width)).rounded())]
        guard track.forgotten == nil else { return paint("\(gauge) forgotten", .red) }
        let color = share < 0.6 ? TextStyle.Color.green : .yellow
        return paint(gauge, color) + " \(track.silence.tenths)s of \(DemoSettings.firewallTimeout)s"
    }

    /// One line for an output that cannot redraw.
    func line(_ tracks: [Track]) -> String {
        let states = tracks.map { track in
            let probes = track.probes == 1 ? "1 probe" : track.probes == 0 ? "no probe" : "\(track.probes) probes"
            let memory = track.forgotten == nil ? "remembered" : "forgotten"
            return "\(track.session.address) (\(track.session)) \(memory), \(probes)"
        }
        return "\(Int(tracks[0].now))s  " + states.joined(separator: "; ")
    }

    private func paint(_ text: String, _ color: TextStyle.Color) -> String {
        screen?.paint(text, color) ?? text
    }
}
