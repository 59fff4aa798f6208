import Foundation
import MPIShim
import Support
import TensorCore

/// Runs a program on every rank and ends every rank, whatever happens on any of them.
///
/// At the end the ranks say farewell: each tells how it went, and all leave with one exit code; the lowest of
/// the ranks that failed prints its error. A rank that failed by itself cannot reach the others, which wait for
/// it in a collective; after a few seconds it prints its error and aborts the job. A rank that dies by a signal
/// is noticed by mpirun, which ends the rest.
///
/// - Returns: the exit code, the same on every rank. The message has been printed to standard error.
package func runOnAllRanks(_ body: (any Communicator) throws -> Void) -> Int32 {
    // MPI's own connections count, too.
    OpenFileLimit.raise()
    let communicator: any Communicator
    do {
        communicator = try openCommunicator()
    } catch {
        printError(error.message, rank: nil)
        return error.exitStatus
    }
    shareThreads(communicator)
    let outcome = Result { try body(communicator) }
    fflush(nil)
    guard let communicator = communicator as? MPICommunicator else {
        guard case .failure(let error) = outcome else { return ExitStatus.success }
        let report = FailureReport(error)
        printEnd(report, rank: nil)
        return report.exitStatus
    }
    return communicator.sayFarewell(outcome)
}

/// Gives each rank its part of the machine's cores, unless OMP_NUM_THREADS says otherwise: ranks that are not bound
/// would else all take every core.
private func shareThreads(_ communicator: any Communicator) {
    guard ProcessInfo.processInfo.environment["OMP_NUM_THREADS"] == nil else { return }
    let allowed = ProcessInfo.processInfo.activeProcessorCount
    let isBound = allowed < ProcessInfo.processInfo.processorCount
    Processor.setThreads(isBound ? allowed : max(1, allowed / communicator.localSize))
}

extension MPICommunicator {
    /// How one rank's program ended, as the ranks tell each other.
    private struct Ending {
        enum Kind: Int64 {
            case success = 0
            case ownError = 1
            case remoteError = 2
            /// Failed, and asks whether the others have failed, too.
            case meeting = 3
        }
        package var kind: Kind
        var exitStatus: Int64
        var messageHash: Int64
    }

    /// How long a failed rank waits for the others to fail too before it aborts them.
    private static let patience = 5.0

    fileprivate func sayFarewell(_ outcome: Result<Void, any Error>) -> Int32 {
        var own = Ending(kind: .success, exitStatus: 0, messageHash: 0)
        var report = FailureReport(message: "", exitStatus: 0)
        if case .failure(let error) = outcome {
            report = FailureReport(error)
            own = Ending(
                kind: error is RemoteFailure ? .remoteError : .ownError,
                exitStatus: Int64(report.exitStatus), messageHash: stableHash(report.message))
            if error is CommunicationError { endJob(report) }
        }
        guard abandonedRequests == 0, let endings = exchange(own) else { endJob(report) }

        let failures = endings.indices.filter { [.ownError, .meeting].contains(endings[$0].kind) }
        // One line for one fault: the lowest rank's. A disk that is full is full for every rank.
        let told = failures.filter { endings[$0].messageHash != stableHash("") }
        if rank == told.first {
            // Which rank says it matters only where the others did not find the same.
            let isCommon = endings.allSatisfy { $0.messageHash == own.messageHash }
            let others = told.filter { endings[$0].messageHash != own.messageHash }.count
            let more = others == 0 ? "" : "; \(others) other ranks failed too"
            printEnd(
                FailureReport(message: report.message + more, exitStatus: report.exitStatus),
                rank: isCommon ? nil : rank)
        }
        do {
            try finalize()
        } catch {
            printError(error.message, rank: rank)
            return error.exitStatus
        }
        let decisive = failures.first ?? endings.indices.first { endings[$0].kind == .remoteError }
        return decisive.map { Int32(truncatingIfNeeded: endings[$0].exitStatus) } ?? ExitStatus.success
    }

    package func meetsAllRanks(within seconds: Double) -> Bool {
        let own = Ending(
            kind: .meeting, exitStatus: Int64(ExitStatus.crash), messageHash: stableHash(""))
        guard let endings = exchange(own, patience: seconds) else { return false }
        return endings.allSatisfy { $0.kind == .meeting }
    }

    /// How every rank ended; nil when this rank failed and the others do not come in time.
    private func exchange(_ own: Ending, patience: Double = patience) -> [Ending]? {
        let mine = UnsafeMutablePointer<Int64>.allocate(capacity: 3)
        let all = UnsafeMutablePointer<Int64>.allocate(capacity: 3 * size)
        // Not freed when the others do not come: the exchange is still open then, and the job ends.
        all.initialize(repeating: 0, count: 3 * size)
        mine.initialize(to: own.kind.rawValue)
        (mine + 1).initialize(to: own.exitStatus)
        (mine + 2).initialize(to: own.messageHash)

        var request = mpishim_null_request()
        guard mpishim_start_farewell(mine, all, &request) == 0 else { return nil }
        let deadline = own.kind == .success ? .infinity : monotonicSeconds() + patience
        while true {
            var done: Int32 = 0
            guard mpishim_test_all(&request, 1, &done) == 0 else { return nil }
            if done != 0 { break }
            guard monotonicSeconds() < deadline else { return nil }
            usleep(500)  // The core belongs to ranks that still compute.
        }
        defer {
            mine.deallocate()
            all.deallocate()
        }
        return (0..<size).map { rank in
            Ending(
                kind: Ending.Kind(rawValue: all[3 * rank]) ?? .success,
                exitStatus: all[3 * rank + 1], messageHash: all[3 * rank + 2])
        }
    }

    private func endJob(_ report: FailureReport) -> Never {
        let code = report.exitStatus == ExitStatus.success ? ExitStatus.crash : report.exitStatus
        printError(
            report.message.isEmpty ? "the ranks could not end together" : report.message, rank: rank)
        abort(code)
    }
}

private func printEnd(_ report: FailureReport, rank: Int?) {
    // To stop when asked is no error.
    guard report.exitStatus == ExitStatus.runAgain else { return printError(report.message, rank: rank) }
    Console.error.write(report.message.prefix(1).uppercased() + report.message.dropFirst() + "\n")
}

private func printError(_ message: String, rank: Int?) {
    guard !message.isEmpty else { return }
    let place = rank.map { " (rank \($0))" } ?? ""
    Console.error.write("Error\(place): \(message)\n")
}

/// FNV-1a: the same on every rank, which Swift's seeded hash is not.
private func stableHash(_ text: String) -> Int64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return Int64(bitPattern: hash)
}
