import SockaliveCore

/// The doctor's answer for people: a line a check, its remedy below it, all within 100 columns.
struct DoctorText {
    let report: DoctorReport
    let style: TextStyle

    private static let width = 100
    private static let statusWidth = 11

    var text: String {
        let sections = [
            ("This machine", report.machineChecks),
            ("Tried on a child process and a connection of its own", report.trialChecks),
            ("Running targets", report.targetChecks),
        ]
        let shown = sections.filter { !$0.1.isEmpty }
        let nameWidth = shown.flatMap(\.1).map(\.name.count).max() ?? 0
        let blocks = shown.map { title, checks in
            ([title] + checks.flatMap { lines($0, nameWidth: min(nameWidth, 26)) }).joined(separator: "\n") + "\n"
        }
        return blocks.joined(separator: "\n") + "\n" + conclusion + "\n"
    }

    private func lines(_ check: Check, nameWidth: Int) -> [String] {
        let indent = Self.statusWidth + nameWidth + 2
        let room = Self.width - indent
        // A name that is too long gets a line of its own.
        let isLong = check.name.count > nameWidth
        let gap = String(repeating: " ", count: Self.statusWidth - 2 - check.status.rawValue.count)
        let head = "  \(style.paint(check.status.rawValue, check.status.color))\(gap)"
        var body = wrapped(check.message, room)
        let first = head + (isLong ? check.name : check.name.padded(nameWidth + 2) + body.removeFirst())
        if let remedy = check.remedy, check.status != .ok {
            body += wrapped("→ " + remedy, room)
        }
        return [first] + body.map { String(repeating: " ", count: indent) + $0 }
    }

    /// Breaks between words; a word longer than the line is cut.
    private func wrapped(_ text: String, _ width: Int) -> [String] {
        var lines: [String] = []
        for word in text.split(separator: " ") {
            if let last = lines.last, last.count + 1 + word.count <= width {
                lines[lines.count - 1] += " " + word
                continue
            }
            var rest = word[...]
            while !rest.isEmpty {
                lines.append(String(rest.prefix(width)))
                rest = rest.dropFirst(width)
            }
        }
        return lines.isEmpty ? [""] : lines
    }

    private var conclusion: String {
        let methods = report.workingMethods.joined(separator: " and by ")
        let able =
            if methods.isEmpty {
                "sockalive could not show that it works here"
            } else if report.problems > 0 {
                "sockalive works here in part, by \(methods)"
            } else if report.targetChecks.isEmpty {
                "sockalive works here, by \(methods), but sees no target"
            } else {
                "sockalive works here, by \(methods)"
            }
        return "\(able): \(counted(report.problems, "problem")), \(counted(report.notes, "note"))."
    }

    private func counted(_ count: Int, _ noun: String) -> String {
        "\(count == 0 ? "no" : "\(count)") \(noun)\(count == 1 ? "" : "s")"
    }
}

extension Check.Status {
    fileprivate var color: TextStyle.Color {
        switch self {
        case .ok: .green
        case .note: .yellow
        case .problem: .red
        }
    }
}
