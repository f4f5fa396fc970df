/// One line of the doctor's answer.
public struct Check: Equatable, Sendable {
    public enum Status: String, Sendable {
        case ok
        /// Worth knowing; nothing has to be done.
        case note
        /// Stands in the way of the work.
        case problem
    }

    public let name: String
    public let status: Status
    /// One line; what other processes chose stands escaped in it.
    public let message: String
    public let remedy: String?

    private init(_ name: String, _ status: Status, _ message: String, _ remedy: String?) {
        self.name = name
        self.status = status
        self.message = message
        self.remedy = remedy
    }

    static func ok(_ name: String, _ message: String) -> Check {
        Check(name, .ok, message, nil)
    }

    static func note(_ name: String, _ message: String, remedy: String? = nil) -> Check {
        Check(name, .note, message, remedy)
    }

    /// A problem never comes without its remedy.
    static func problem(_ name: String, _ message: String, remedy: String) -> Check {
        Check(name, .problem, message, remedy)
    }

    /// A problem where nothing else serves, else a note.
    static func obstacle(_ name: String, isFatal: Bool, _ message: String, remedy: String) -> Check {
        Check(name, isFatal ? .problem : .note, message, remedy)
    }
}
