import Glibc
import SystemPackage

/// The entries of an open folder (readdir(3)).
struct FolderEntries: ~Copyable {
    private let directory: OpaquePointer
    /// Why the last entry is not the folder's last one; nil if it is, and before the end.
    private(set) var error: Errno?

    /// - Parameter descriptor: of the folder, open for reading. It is closed at the end, also if this fails.
    init(_ descriptor: Int32) throws(Errno) {
        guard let directory = fdopendir(descriptor) else {
            let error = Errno(rawValue: errno)
            close(descriptor)
            throw error
        }
        self.directory = directory
    }

    deinit {
        closedir(directory)
    }

    /// The next entry; nil at the end.
    ///
    /// - Parameter body: is given the name, which ends with a zero byte, and whether it is known to be of a folder.
    mutating func next<Result>(_ body: (UnsafePointer<CChar>, _ isFolder: Bool) -> Result) -> Result? {
        errno = 0
        guard let entry = readdir(directory) else {
            error = errno == 0 ? nil : Errno(rawValue: errno)
            return nil
        }
        let name = UnsafeRawPointer(entry).advanced(by: MemoryLayout<dirent>.offset(of: \.d_name)!)
        return body(name.assumingMemoryBound(to: CChar.self), entry.pointee.d_type == UInt8(DT_DIR))
    }

    /// The next name and whether it is a folder's, without the folder itself and the one above.
    mutating func nextName() -> (name: [UInt8], isFolder: Bool)? {
        while let entry = next({ (Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))), $1) }) {
            if !entry.0.elementsEqual(".".utf8) && !entry.0.elementsEqual("..".utf8) { return entry }
        }
        return nil
    }
}
