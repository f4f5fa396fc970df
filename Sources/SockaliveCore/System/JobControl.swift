import CSockalive

/// Runs `body` while no terminal can stop this process: a target that is held would stand still with it for as long
/// as a person likes. A SIGTSTP, SIGTTIN or SIGTTOU that comes meanwhile stops it afterwards. SIGSTOP cannot wait.
///
/// The mask is the calling thread's, and threads that it starts have it from the beginning.
func withoutJobControlStops<Value>(_ body: () throws -> Value) rethrows -> Value {
    let blocked = sockalive_hold_job_control()
    defer { sockalive_let_job_control_stop(blocked) }
    return try body()
}
