import Glibc

/// Watches both sessions while they are idle: on a terminal a line each that grows, elsewhere a line a second.
struct Timeline {
    private let screen: Screen?
    private let firewall: Firewall
    private let start: ContinuousClock.Instant
    private let style: TimelineStyle
    private var tracks: [Track]

    /// `start` is the moment of the last packet of the conversation; without a screen nothing is shown.
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

    /// Returns the tracks when the time is over.
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
