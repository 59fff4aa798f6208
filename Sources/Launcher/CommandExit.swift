import ArgumentParser
import Communication
import Foundation
import Records
import Supervision
import Support

// How a command ends: a one-line message for the user, and the exit codes of `ExitStatus`.

extension ParsableCommand {
    /// Parses the command line, runs the command and exits. This is all that `main` does.
    static func runAndExit() -> Never {
        // A closed pipe, for example to `head`, must not kill a training run: the write fails instead, and
        // the error is handled.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            try command.run()
            exit(withError: nil)
        } catch let code as ExitCode {
            exit(withError: code)  // The error has been printed.
        } catch let error as any ReportableError where !(error is ValidationError) {
            Console.error.write("Error: \(error.description)\n")
            exit(withError: ExitCode(error.exitStatus))
        } catch {
            // All ranks parsed the same command line and print the same message, so only one prints it. The
            // others exit later, because mpirun kills the remaining ranks as soon as one has exited.
            guard LaunchEnvironment.speaksForAll() else {
                usleep(500_000)
                exit(withError: ExitCode(exitCode(for: error) == .success ? 0 : ExitStatus.usage))
            }
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            Console.error.write(fullMessage(for: error) + "\n")
            exit(withError: ExitCode(ExitStatus.usage))
        }
    }

    /// Runs the body of a subcommand that works on one or more ranks.
    ///
    ///     func run() throws {
    ///         try onAllRanks { communicator in
    ///             let config = try communicator.collectively("reading the configuration") { … }
    ///             try train(config, communicator)
    ///         }
    ///     }
    ///
    /// When it returns or throws, errors have been printed exactly once.
    func onAllRanks(_ body: (Communicator) throws -> Void) throws {
        let status = runOnAllRanks { communicator in try saidAlready { try body(communicator) } }
        if status != ExitStatus.success { throw ExitCode(status) }
    }

    /// Like `onAllRanks`, for a job whose ranks watch each other from MPI_Init on.
    func onAllRanks(
        watchedBy limits: WatchLimits, _ body: (Communicator, JobWatcher) throws -> Void
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

/// Lets ranks handle ArgumentParser's errors like the program's own.
extension ValidationError: ReportableError {
    package var exitStatus: Int32 { ExitStatus.usage }
}
