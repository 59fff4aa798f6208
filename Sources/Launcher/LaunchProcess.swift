import DistTrain
import Foundation

/// A program run to its end in a process group of its own, with this process's signals passed on to it.
public enum LaunchProcess {
    public enum Ending: Equatable, Sendable {
        case exited(Int32)
        case killed(signal: Int32)
    }

    /// Signals that are meant for the job. In its own process group the job does not see a terminal's
    /// interrupt by itself, and gets it once.
    private static let forwarded = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]

    /// Runs the program and returns how it ended, and the last signal that was passed on to it. Its standard
    /// input is empty.
    ///
    /// - Throws: `LaunchError` when it cannot be started.
    public static func run(
        executable: String, arguments: [String], environment: [String: String]
    ) throws -> (ending: Ending, forwarded: Int32?) {
        // Signals are blocked and taken one by one with sigwait, so that no handler runs anywhere.
        var waited = sigset_t()
        var previous = sigset_t()
        sigemptyset(&waited)
        sigaddset(&waited, SIGCHLD)
        // What nohup and its like have set to be ignored stays ignored.
        for signal in forwarded where !isIgnored(signal) { sigaddset(&waited, signal) }
        pthread_sigmask(SIG_BLOCK, &waited, &previous)
        defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }

        let child = try spawn(executable, arguments, environment, signalMask: previous)
        var lastForwarded: Int32?
        while true {
            var signal: Int32 = 0
            guard sigwait(&waited, &signal) == 0 else { continue }
            if signal != SIGCHLD {
                kill(child, signal)
                lastForwarded = signal
                continue
            }
            if let ending = ending(of: child) { return (ending, lastForwarded) }
        }
    }

    /// How a child has ended, which is told once; nil while it runs.
    static func ending(of child: pid_t) -> Ending? {
        var status: Int32 = 0
        guard waitpid(child, &status, WNOHANG) == child else { return nil }
        // The macros WIFEXITED and its fellows, which Swift does not see.
        let number = status & 0x7f
        return number == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: number)
    }

    /// POSIX_SPAWN_SETSID of glibc, which Swift does not see.
    private static let spawnInOwnSession: Int32 = 0x80

    /// Starts a program; its standard input is empty.
    ///
    /// - Parameters:
    ///   - signalMask: what it begins with.
    ///   - ownSession: it leads a session, by which all of its processes can be found, in place of a process group.
    ///   - output: file for what it prints, written anew; nil for this process's own.
    /// - Throws: `LaunchError` when it cannot be started.
    static func spawn(
        _ executable: String, _ arguments: [String], _ environment: [String: String], signalMask: sigset_t,
        ownSession: Bool = false, output: String? = nil
    ) throws -> pid_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = signalMask
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setpgroup(&attributes, 0)
        let place = ownSession ? spawnInOwnSession : Int32(POSIX_SPAWN_SETPGROUP)
        posix_spawnattr_setflags(&attributes, Int16(Int32(POSIX_SPAWN_SETSIGMASK) | place))

        // In a process group of its own the job would be stopped if it read from the terminal.
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        if let output {
            posix_spawn_file_actions_addopen(
                &files, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
            posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO)
        }

        var argv = ([executable] + arguments).map { strdup($0) } + [nil]
        var envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for word in argv + envp { free(word) } }
        var child: pid_t = 0
        let error = posix_spawn(&child, executable, &files, &attributes, &argv, &envp)
        guard error == 0 else {
            throw LaunchError(
                "cannot start \(executable): \(String(cString: strerror(error)))",
                exitStatus: ExitStatus.crash)
        }
        return child
    }

    static func isIgnored(_ signal: Int32) -> Bool {
        var action = sigaction()
        sigaction(signal, nil, &action)
        // SIG_IGN is the handler at address 1.
        return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
    }

    /// This very program, wherever PATH leads.
    static func ownExecutable() throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    }
}
