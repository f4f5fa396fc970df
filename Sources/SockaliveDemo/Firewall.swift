/// The firewall between the hosts: nftables and the kernel's connection tracking, in this network namespace.
struct Firewall {
    let nft: Tool

    /// The firewall's state of one session.
    struct View: Equatable {
        /// Packets of the agent that the firewall passed, and that it dropped.
        var passed = 0
        var dropped = 0
        /// Whether the connection is tracked; nil if the kernel does not show its table.
        var remembered: Bool?
    }

    /// Only a SYN opens a connection. Packets outside an open connection are dropped, also those of a forgotten
    /// connection, which conntrack would otherwise accept as a new one (its "loose" pickup).
    ///
    /// nft sets the timeout (0.9.1). net.netfilter.nf_conntrack_tcp_timeout_established is not used, because kernel
    /// commit b884fa461776 hid it from user namespaces for some versions (4.20 and later). The number has no unit,
    /// because older nft knows no units here.
    private static var rules: String {
        let sessions = DemoSession.allCases
        return """
            table ip demo {
                ct timeout short {
                    protocol tcp
                    l3proto ip
                    policy = { established: \(DemoSettings.firewallTimeout) }
                }
                \(sessions.map { "counter passed_\($0) { }\ncounter dropped_\($0) { }" }.joined(separator: "\n"))
                chain forward {
                    type filter hook forward priority 0; policy drop;
                    \(sessions.map { "ct state established ip daddr \($0.address) counter name passed_\($0) accept" }
                        .joined(separator: "\n"))
                    ct state established accept
                    tcp dport \(DemoSettings.port) tcp flags & (fin | syn | rst | ack) == syn ct state new \
            ct timeout set "short" accept
                    \(sessions.map { "ip daddr \($0.address) counter name dropped_\($0) drop" }.joined(separator: "\n"))
                }
            }
            """
    }

    func install() throws {
        // The rules are an argument, because older nft opens "-" as /dev/stdin, which does not work for a socket.
        do {
            try nft.run([Self.rules])
        } catch {
            guard let failure = DemoFailure(error) else { throw error }
            throw DemoFailure(
                "\(failure.line); the demo needs nf_tables and nf_conntrack in the kernel (modprobe nft_ct)",
                .unsupported)
        }
    }

    /// Reads the state of both sessions from the kernel.
    func views() throws -> [DemoSession: View] {
        let counters = try Self.counters(in: nft.run(["list", "counters"]))
        let table = Self.trackingTable()
        return Dictionary(
            uniqueKeysWithValues: DemoSession.allCases.map { session in
                let view = View(
                    passed: counters["passed_\(session)"] ?? 0, dropped: counters["dropped_\(session)"] ?? 0,
                    remembered: table.map { Self.isTracked(session, in: $0) })
                return (session, view)
            })
    }

    /// Reads `counter NAME { packets N bytes N }`.
    static func counters(in listing: String) -> [String: Int] {
        let words = listing.split { $0.isWhitespace }
        var counters: [String: Int] = [:]
        for (index, word) in words.enumerated().dropLast(4)
        where word == "counter" && words[index + 3] == "packets" {
            counters[String(words[index + 1])] = Int(words[index + 4])
        }
        return counters
    }

    /// A row starts with the original direction: `ipv4 2 tcp 6 4 ESTABLISHED src=… dst=… sport=… dport=… src=…`.
    static func isTracked(_ session: DemoSession, in table: String) -> Bool {
        table.split(separator: "\n").contains { row in
            let fields = row.split(separator: " ")
            return fields.contains("ESTABLISHED") && fields.first { $0.hasPrefix("dst=") } == "dst=\(session.address)"
        }
    }

    /// The tracking table of this network namespace; nil on a kernel without CONFIG_NF_CONNTRACK_PROCFS.
    private static func trackingTable() -> String? {
        KernelFile.read("/proc/net/nf_conntrack")
    }
}
