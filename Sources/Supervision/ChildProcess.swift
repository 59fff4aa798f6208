import Foundation
import Support
import Synchronization

/// A child process in its own process group. Its standard input is empty unless `hasInput` is set.
package final class ChildProcess {
    package enum Ending: Equatable, Sendable {
        case exited(Int32)
        case killed(signal: Int32)
    }

    /// Destination of the child's standard output and standard error.
    package enum Output: Equatable, Sendable {
        /// Inherited from this process.
        case inherited
        /// Pipes that this process reads.
        case captured
        /// A file, which is truncated first.
        case file(String)
    }

    package let pid: pid_t
    /// Read end of the standard output pipe; nil if the output is inherited.
    package let output: Int32?
    package let error: Int32?
    /// Write end of the standard input pipe; nil if there is none.
    private var input: Int32?
    private var ending: Ending?

    /// - Parameters:
    ///   - hasInput: connects standard input to a pipe, which `closeInput` or the end of this process closes.
    ///   - ownSession: makes the child a session leader, so that all of its descendants can be found, instead
    ///     of a process group leader.
    ///   - signalMask: the child's signal mask; nil: that of the calling thread.
    /// - Throws: `LaunchError` if the process cannot be started.
    package init(
        _ words: [String], environment: [String: String], output: Output, hasInput: Bool = false,
        ownSession: Bool = false, signalMask: sigset_t? = nil
    ) throws {
        Self.unreaped.reap()
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setpgroup(&attributes, 0)
        var flags = ownSession ? Self.setSession : Int32(POSIX_SPAWN_SETPGROUP)
        if var mask = signalMask {
            posix_spawnattr_setsigmask(&attributes, &mask)
            flags |= Int32(POSIX_SPAWN_SETSIGMASK)
        }
        posix_spawnattr_setflags(&attributes, Int16(flags))

        // The child is in a background process group: reading from the terminal would stop it with SIGTTIN.
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        var inputPipe: [Int32]?
        if hasInput {
            let ends = try Self.makePipe()
            posix_spawn_file_actions_adddup2(&files, ends[0], STDIN_FILENO)
            inputPipe = ends
        } else {
            posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        }
        defer { if let inputPipe { close(inputPipe[0]) } }
        var pipes: [[Int32]] = []
        if case .file(let path) = output {
            posix_spawn_file_actions_addopen(
                &files, STDOUT_FILENO, path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
            posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO)
        }
        if output == .captured {
            for target in [STDOUT_FILENO, STDERR_FILENO] {
                let ends = try Self.makePipe()
                posix_spawn_file_actions_adddup2(&files, ends[1], target)
                pipes.append(ends)
            }
        }
        // Inherited as ignored, it would discard the exit status, and `waitpid` would find no child.
        signal(SIGCHLD, SIG_DFL)
        var argv = words.map { strdup($0) } + [nil]
        var envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for word in argv + envp { free(word) } }
        var child: pid_t = 0
        let error = posix_spawnp(&child, words[0], &files, &attributes, &argv, &envp)
        for ends in pipes {
            close(ends[1])
            _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
            if error != 0 { close(ends[0]) }
        }
        guard error == 0 else {
            if let inputPipe { close(inputPipe[1]) }
            throw LaunchError(
                "cannot start \(words[0]): \(Self.systemWords(error))", exitStatus: ExitStatus.crash)
        }
        pid = child
        input = inputPipe?[1]
        self.output = pipes.first?[0]
        self.error = pipes.last?[0]
    }

    /// glibc's POSIX_SPAWN_SETSID, which Swift does not import.
    private static let setSession: Int32 = 0x80

    deinit { for descriptor in [output, error, input].compactMap({ $0 }) { close(descriptor) } }

    /// Both ends are close-on-exec. If another child inherited a write end, the reader would not see
    /// end-of-file when the only intended writer ends.
    private static func makePipe() throws -> [Int32] {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            throw LaunchError("cannot create a pipe: \(systemWords(errno))", exitStatus: ExitStatus.crash)
        }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return ends
    }

    /// Writes a line to the child's standard input. Lines are short enough to fit into the pipe's buffer.
    package func send(line: String) {
        guard let input else { return }
        let bytes = Array((line + "\n").utf8)
        _ = write(input, bytes, bytes.count)
    }

    package func closeInput() {
        if let input { close(input) }
        input = nil
    }

    /// Returns the exit status, or nil while the process runs. Does not block.
    package func poll() -> Ending? {
        if let ending { return ending }
        var status: Int32 = 0
        guard waitpid(pid, &status, WNOHANG) == pid else { return nil }
        // Equivalent to WIFEXITED, WEXITSTATUS and WTERMSIG, which Swift does not import.
        let signal = status & 0x7f
        ending = signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal)
        return ending
    }

    package func send(_ signal: Int32) { if ending == nil { kill(pid, signal) } }

    /// Kills the whole process group unless the process has already been reaped.
    package func killGroup() { if ending == nil { kill(-pid, SIGKILL) } }

    /// Kills the whole process group and reaps the process. Returns after 1 s at the latest: a process that
    /// is blocked on an unresponsive disk is reaped when the next child is started.
    package func end() {
        killGroup()
        if !waitForEnd(1) { Self.unreaped.add(pid) }
    }

    /// Waits up to `seconds` for the process to exit by itself, then kills it.
    package func end(within seconds: Double) { if !waitForEnd(seconds) { end() } }

    private func waitForEnd(_ seconds: Double) -> Bool {
        for _ in 0...Int(seconds * 100) {
            if poll() != nil { return true }
            usleep(10_000)
        }
        return false
    }

    /// Killed processes that have not been reaped yet.
    private static let unreaped = Unreaped()

    private final class Unreaped: Sendable {
        private let processes = Mutex<[pid_t]>([])

        func add(_ process: pid_t) { processes.withLock { $0.append(process) } }

        func reap() { processes.withLock { $0.removeAll { waitpid($0, nil, WNOHANG) != 0 } } }
    }

    private static func systemWords(_ error: Int32) -> String { String(cString: strerror(error)) }
}

extension ChildProcess {
    /// Signals to forward to the job. The job is in its own process group, so the terminal does not send it
    /// SIGINT directly and it receives each signal exactly once.
    private static let forwarded = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]

    /// Runs a program until it exits and forwards this process's signals to it.
    ///
    /// - Returns: how the process ended, and the last signal that was forwarded.
    package static func run(
        _ words: [String], environment: [String: String]
    ) throws -> (ending: Ending, forwarded: Int32?) {
        // Block the signals and take them one at a time with sigwait, so that no asynchronous handler runs.
        var waited = sigset_t()
        var previous = sigset_t()
        sigemptyset(&waited)
        sigaddset(&waited, SIGCHLD)
        // Signals that are already ignored, for example because of nohup, stay ignored.
        for signal in forwarded where !isIgnored(signal) { sigaddset(&waited, signal) }
        pthread_sigmask(SIG_BLOCK, &waited, &previous)
        defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }

        let child = try ChildProcess(
            words, environment: environment, output: .inherited, signalMask: previous)
        var lastForwarded: Int32?
        while true {
            var signal: Int32 = 0
            guard sigwait(&waited, &signal) == 0 else { continue }
            if signal != SIGCHLD {
                child.send(signal)
                lastForwarded = signal
                continue
            }
            if let ending = child.poll() { return (ending, lastForwarded) }
        }
    }
}

/// A short command whose output is captured, with a deadline.
package final class ShortChild {
    private let child: ChildProcess

    /// Returns nil if the command cannot be started.
    package init?(_ words: [String], environment: [String: String] = ProcessInfo.processInfo.environment) {
        guard let child = try? ChildProcess(words, environment: environment, output: .captured) else {
            return nil
        }
        self.child = child
    }

    /// - Parameter deadline: in seconds, on the clock of `monotonicTime`.
    /// - Returns: nil if the command has not ended by the deadline, in which case it is killed.
    package func finish(by deadline: Double) -> (status: Int32, output: String, error: String)? {
        var output = PipeReader(child.output)
        var error = PipeReader(child.error)
        while true {
            let ending = child.poll()
            output.read()
            error.read()
            if let ending {
                let status: Int32 =
                    switch ending {
                    case .exited(let code): code
                    case .killed(let signal): 128 + signal
                    }
                return (status, output.text, error.text)
            }
            guard monotonicTime() < deadline else {
                child.end()
                return nil
            }
            usleep(10_000)
        }
    }
}

/// Accumulates the bytes read from a pipe.
struct PipeReader {
    let descriptor: Int32?
    private(set) var bytes: [UInt8] = []

    init(_ descriptor: Int32?) { self.descriptor = descriptor }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Reads what is available. Does not block.
    mutating func read() {
        guard let descriptor else { return }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Foundation.read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return }
            bytes += buffer[..<count]
        }
    }

    /// Removes and returns the complete lines.
    mutating func takeLines() -> [String] {
        guard let end = bytes.lastIndex(of: UInt8(ascii: "\n")) else { return [] }
        let lines = bytes[..<end].split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        defer { bytes.removeSubrange(...end) }
        return lines.map { String(decoding: $0, as: UTF8.self) }
    }

    /// Removes and returns the last line if it has no newline.
    mutating func takeRest() -> String {
        defer { bytes = [] }
        return text
    }
}
