extension ProcFS {
    /// A whole small file; nil where it cannot be read.
    func text(_ path: String) -> [UInt8]? {
        try? read(path) { Array($0) }
    }

    /// A file that holds one number.
    func number(_ path: String) -> Int? {
        text(path)?.dropTrailingNewlines.decimal()
    }
}

extension [UInt8] {
    var dropTrailingNewlines: ArraySlice<UInt8> {
        self[..<(lastIndex { $0 != UInt8(ascii: "\n") }.map { $0 + 1 } ?? 0)]
    }
}
