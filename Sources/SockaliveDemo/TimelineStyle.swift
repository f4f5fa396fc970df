import SockaliveCore

/// How the timeline looks. At 100 columns a row is:
///
///     192.0.2.1  injected    ━━━━╋━━━╋━━━━╋━━━              3       ████░░░░░░ 2.0s of 5s
struct TimelineStyle {
    private let screen: Screen?
    /// How many cells the whole time takes.
    let cells: Int
    /// Whether rows are drawn again in place.
    let isLive: Bool

    /// Both names in front of the bar; a gap, probes, gauge and words behind it; the last column stays free.
    private static let besides = 24 + 3 + 8 + Gauge.width + 1 + 10 + 1
    private static let minCells = DemoSettings.idle

    init(screen: Screen?) {
        self.screen = screen
        let room = (screen?.columns ?? 0) - Self.besides
        cells = min(4 * DemoSettings.idle, max(room, Self.minCells))
        isLive = screen?.isTerminal == true && room >= Self.minCells
    }

    /// Up over both rows.
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

    /// One line for where lines cannot be drawn again.
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
