import ArgumentParser
import Communication
import Foundation
import Records
import Supervision
import Support

// How a command ends: one line for the user, and the exit codes of `ExitStatus`.

extension ParsableCommand {
    /// Parses the command line, runs the command and leaves the process. The whole of `main`.
    static func runAndExit() -> Never {
        // A reader that goes away, such as `head`, must not kill a training; writing then fails, and that is handled.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            try command.run()
            exit(withError: nil)
        } catch let code as ExitCode {
            exit(withError: code)  // Said already.
        } catch let error as any ReportableError where !(error is ValidationError) {
            Console.error.write("Error: \(error.message)\n")
            exit(withError: ExitCode(error.exitStatus))
        } catch {
            // All ranks were given the same words. The others leave later, since mpirun kills the rest as
            // soon as one is gone.
            guard LaunchEnvironment.speaksForAll() else {
                usleep(500_000)
                exit(withError: ExitCode(exitCode(for: error) == .success ? 0 : ExitStatus.usage))
            }
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            Console.error.write(fullMessage(for: error) + "\n")
            exit(withError: ExitCode(ExitStatus.usage))
        }
    }

    /// Runs the body of a subcommand that works on one rank or many.
    ///
    ///     func run() throws {
    ///         try onAllRanks { communicator in
    ///             let config = try communicator.collectively("reading the configuration") { … }
    ///             try train(config, communicator)
    ///         }
    ///     }
    ///
    /// Errors have been printed, once, when it returns.
    func onAllRanks(_ body: (any Communicator) throws -> Void) throws {
        let status = runOnAllRanks { communicator in try saidAlready { try body(communicator) } }
        if status != ExitStatus.success { throw ExitCode(status) }
    }

    /// The same, for a job whose ranks watch each other from MPI's start on.
    func onAllRanks(
        watchedBy limits: WatchLimits, _ body: (any Communicator, JobWatcher) throws -> Void
    ) throws {
        let status = runOnAllRanks(watchedBy: limits) { communicator, watcher in
            try saidAlready { try body(communicator, watcher) }
        }
        if status != ExitStatus.success { throw ExitCode(status) }
    }

    private func saidAlready(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch let code as ExitCode where code != .success {
            throw LaunchError("", exitStatus: code.rawValue)
        }
    }
}

/// Lets ranks end on ArgumentParser's error as on the program's own.
extension ValidationError: ReportableError {
    package var exitStatus: Int32 { ExitStatus.usage }
}
