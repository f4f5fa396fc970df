/// Lines of cells, each column as wide as its widest cell.
enum TextTable {
    struct Cell {
        let shown: String
        let width: Int

        init(_ plain: String, shown: String? = nil) {
            self.shown = shown ?? plain
            width = plain.utf8.allSatisfy { $0 < 0x80 } ? plain.utf8.count : plain.count
        }

        /// Plain text behind a gauge of so many columns.
        init(gauge: String, width: Int, _ text: String) {
            shown = gauge + text
            self.width = width + text.utf8.count
        }
    }

    static func widths(_ rows: [[Cell]]) -> [Int] {
        guard let first = rows.first else { return [] }
        return first.indices.map { column in rows.reduce(0) { max($0, $1[column].width) } }
    }

    /// - Parameter widths: of all columns.
    static func text(_ rows: [[Cell]], _ widths: [Int]) -> String {
        // Bytes, not pieces of text: some programs have twenty thousand sockets.
        var text: [UInt8] = []
        for row in rows {
            for (cell, width) in zip(row.dropLast(), widths) {
                text += cell.shown.utf8
                text += repeatElement(UInt8(ascii: " "), count: width - cell.width + 2)
            }
            text += row[row.count - 1].shown.utf8
            text.append(UInt8(ascii: "\n"))
        }
        return String(decoding: text, as: UTF8.self)
    }
}
