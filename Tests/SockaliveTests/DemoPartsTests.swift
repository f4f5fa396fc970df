import SockaliveCore
import Testing

@testable import SockaliveDemo

@Suite struct `The demo's firewall` {
    @Test func `counters are parsed from nft's listing`() {
        let listing = """
            table ip demo {
            \tcounter passed_injected {
            \t\tpackets 12 bytes 624
            \t}

            \tcounter dropped_untouched {
            \t\tpackets 0 bytes 0
            \t}
            }
            """
        #expect(Firewall.counters(in: listing) == ["passed_injected": 12, "dropped_untouched": 0])
        #expect(Firewall.counters(in: "").isEmpty)
        #expect(Firewall.counters(in: "counter cut { packets").isEmpty)
    }

    @Test func `a session is tracked while it has an established row`() {
        let rows = """
            ipv4     2 tcp      6 4 ESTABLISHED src=198.51.100.1 dst=192.0.2.1 sport=40748 dport=5633 \
            src=192.0.2.1 dst=198.51.100.1 sport=5633 dport=40748 [ASSURED] mark=0 zone=0 use=2
            ipv4     2 tcp      6 9 CLOSE src=198.51.100.1 dst=192.0.2.2 sport=36812 dport=5633 \
            src=192.0.2.2 dst=198.51.100.1 sport=5633 dport=36812 [ASSURED] mark=0 zone=0 use=2

            """
        #expect(Firewall.isTracked(.injected, in: rows))
        #expect(!Firewall.isTracked(.untouched, in: rows))
    }
}

@Suite struct `The demo's timeline` {
    private let terminal = Screen(isTerminal: true, usesColor: false, columns: 100)

    @Test func `a session without packets is forgotten once and stays forgotten`() {
        var track = Track(session: .untouched, cells: 36, view: .init(passed: 4))
        track.advance(to: 4.9, .init(passed: 4, remembered: true))
        #expect(track.forgotten == nil)
        track.advance(to: 5.2, .init(passed: 4, remembered: false))
        track.advance(to: 6.0, .init(passed: 4, remembered: false))
        #expect(track.forgotten == 5.2)
        #expect(track.cells.count == 24)
        #expect(track.cells.count { $0 == .death } == 1)
        #expect(track.cells.suffix(3) == [.dead, .dead, .dead])
    }

    @Test func `a packet that passes is a probe and ends the silence`() {
        var track = Track(session: .injected, cells: 36, view: .init(passed: 4))
        track.advance(to: 1, .init(passed: 5, remembered: true))
        #expect(track.probes == 1)
        #expect(track.silence == 0)
        track.advance(to: 1.5, .init(passed: 5, remembered: true))
        #expect(track.silence == 0.5)
        #expect(track.cells == [.held, .held, .held, .probe, .held, .held])
    }

    @Test func `without a tracking table the firewall's clock decides`() {
        var track = Track(session: .untouched, cells: 36, view: .init())
        track.advance(to: 4.9, .init())
        #expect(track.forgotten == nil)
        track.advance(to: 5.1, .init())
        #expect(track.forgotten == 5.1)
    }

    @Test(arguments: [66, 80, 100, 200]) func `rows fit the terminal`(columns: Int) {
        let style = TimelineStyle(screen: Screen(isTerminal: true, usesColor: false, columns: columns))
        #expect(style.isLive)
        for session in DemoSession.allCases {
            var track = Track(session: session, cells: style.cells, view: .init())
            for tick in 1...36 {
                let isForgotten = session == .untouched && tick > 20
                track.advance(to: Double(tick) / 4, .init(passed: 9 + tick, remembered: !isForgotten))
                let visible = style.row(track).replacing("\u{1B}[K", with: "")
                #expect(visible.count < columns)
            }
        }
        #expect(style.header.allSatisfy { $0.count < columns })
    }

    @Test func `a narrow terminal and a file get plain lines`() {
        #expect(!TimelineStyle(screen: Screen(isTerminal: true, usesColor: false, columns: 60)).isLive)
        #expect(!TimelineStyle(screen: Screen(isTerminal: false, usesColor: false, columns: 200)).isLive)
    }

    @Test func `without colors there are no escape sequences`() {
        #expect(terminal.paint("x", .red) == "x")
        #expect(Screen(isTerminal: true, usesColor: true, columns: 80).paint("x", .red) == "\u{1B}[31mx\u{1B}[0m")
    }
}

@Test(arguments: [Echo.answered(milliseconds: 0.25), .silent, .broken("Connection reset by peer")])
func `an echo is the same after its way as text`(echo: Echo) {
    #expect(Echo(word: echo.word) == echo)
}

@Test(arguments: ["", "answered", "answered soon", "silent 1", "other"])
func `other words give no echo`(word: String) {
    #expect(Echo(word: word) == nil)
}
