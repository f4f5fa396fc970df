import ArgumentParser
import SockaliveCore

/// Text to value, at the boundary: behind it no command sees an unchecked argument.
enum ArgumentTransform {
    static func processName(_ text: String) throws -> String {
        guard !text.isEmpty else { throw ValidationError("a process name has at least one character") }
        guard !text.contains("/") else { throw ValidationError("a process name has no slash: use --exe for a path") }
        return text
    }

    static func pid(_ text: String) throws -> Int32 {
        guard let pid = number(text, Int32.self), pid > 0 else {
            throw ValidationError("a PID is a whole number from 1 on")
        }
        return pid
    }

    static func absolutePath(_ text: String) throws -> String {
        guard text.hasPrefix("/") else { throw ValidationError("the path of an executable starts with a slash") }
        return text
    }

    static func user(_ text: String) throws -> UInt32 {
        guard let uid = UserTable.uid(of: text) else {
            throw ValidationError("/etc/passwd has no such user: give the number of one from a directory service")
        }
        return uid
    }

    static func unit(_ text: String) throws -> UnitName {
        guard let unit = UnitName(written: text) else {
            throw ValidationError(
                text.contains("@")
                    ? "a unit's name has letters, digits and :-_.\\@, and a template needs its instance: agent@1"
                    : "a unit's name has letters, digits and :-_.\\@: agent, or agent.service")
        }
        guard !unit.isSlice else {
            throw ValidationError("a slice is no process's unit: use --cgroup with its path")
        }
        return unit
    }

    static func container(_ text: String) throws -> ContainerSelector {
        guard !text.isEmpty, !text.contains("/") else {
            throw ValidationError("a container is given by its name, or by its ID from 12 digits on")
        }
        return ContainerSelector(text)
    }

    static func pod(_ text: String) throws -> PodSelector {
        guard let pod = PodSelector(text) else {
            throw ValidationError("a pod is given by its name, by NAMESPACE/NAME, or by its UID")
        }
        return pod
    }

    static func cgroup(_ text: String) throws -> CGroupGlob {
        guard let glob = CGroupGlob(text) else {
            throw ValidationError("a cgroup is given by its path from the root, such as /system.slice/agent*")
        }
        return glob
    }

    static func command(_ text: String) throws -> String {
        guard !text.isEmpty else { throw ValidationError("an argument has at least one character") }
        return text
    }

    static func port(_ text: String) throws -> UInt16 {
        guard let port = number(text, UInt16.self), port > 0 else {
            throw ValidationError("a port is a number from 1 to 65535")
        }
        return port
    }

    static func range(_ text: String) throws -> AddressRange {
        guard let range = AddressRange(text) else {
            throw ValidationError(
                "an address range is written 192.0.2.1, 192.0.2.0/24, 2001:db8::/32 or fe80::/10%eth0")
        }
        return range
    }

    static func seconds(_ text: String) throws -> Seconds {
        guard let seconds = Seconds(parsing: text) else {
            throw ValidationError("a duration is written 90, 90s, 15m, 2h or 1h30m, and is at least 1s")
        }
        return seconds
    }

    static func firewallTimeout(_ text: String) throws -> Seconds {
        let seconds = try seconds(text)
        guard seconds >= KeepaliveRequest.minFirewallTimeout else {
            throw ValidationError("a firewall timeout is at least \(KeepaliveRequest.minFirewallTimeout)")
        }
        return seconds
    }

    static func keepaliveSeconds(_ text: String) throws -> Int {
        let seconds = try seconds(text).count
        guard KeepaliveSettings.secondsRange.contains(seconds) else {
            throw ValidationError("the kernel takes 1 to 32767 seconds")
        }
        return seconds
    }

    static func keepaliveCount(_ text: String) throws -> Int {
        guard let count = number(text, Int.self), KeepaliveSettings.countRange.contains(count) else {
            throw ValidationError("the kernel takes 1 to 127 probes")
        }
        guard count != KeepaliveSettings.probeMarker else {
            throw ValidationError("\(count) probes mark a connection that is being probed: take one more or less")
        }
        return count
    }

    /// Milliseconds, as TCP_USER_TIMEOUT counts.
    static func userTimeout(_ text: String) throws -> Int {
        let milliseconds = try seconds(text).count * 1000
        guard milliseconds <= Int32.max else { throw ValidationError("the kernel takes up to 596h") }
        return milliseconds
    }

    /// Digits and nothing else: no sign, no blank, no other script's digits.
    private static func number<Number: FixedWidthInteger>(_ text: String, _: Number.Type) -> Number? {
        text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? Number(text) : nil
    }

    static func wait(_ text: String) throws -> Seconds {
        let seconds = try seconds(text)
        guard seconds <= ProbePlan.maxWait else {
            throw ValidationError("a probe waits for at most \(ProbePlan.maxWait)")
        }
        return seconds
    }

    static func choice<Choice: ExpressibleByArgument>(_ text: String) throws -> Choice {
        guard let choice = Choice(argument: text) else { throw ValidationError("it is none of the choices") }
        return choice
    }

    static func filePath(_ text: String) throws -> String {
        guard !text.isEmpty else { throw ValidationError("a file needs a name") }
        return text
    }
}
