import Foundation
import MPIShim
import Support
import TensorCore

/// Runs a program on every rank, and ends all ranks in any case.
///
/// At the end the ranks exchange their outcomes and exit with a common code; the lowest of the failed ranks
/// prints its error. If only one rank failed, it cannot reach the others, which wait for it in a collective;
/// after a few seconds it prints its error and aborts the job. If a rank is killed by a signal, mpirun ends
/// the others.
///
/// - Returns: the exit code, identical on all ranks. The message has been printed to standard error.
package func runOnAllRanks(_ body: (Communicator) throws -> Void) -> Int32 {
    // MPI's own connections also count towards the limit.
    OpenFileLimit.raise()
    let communicator: Communicator
    do {
        communicator = try Communicator.open()
    } catch {
        printError(error.message, rank: nil)
        return error.exitStatus
    }
    shareThreads(communicator)
    let outcome = Result { try body(communicator) }
    fflush(nil)
    guard communicator.usesMPI else {
        guard case .failure(let error) = outcome else { return ExitStatus.success }
        let report = FailureReport(error)
        printEnd(report, rank: nil)
        return report.exitStatus
    }
    return communicator.sayFarewell(outcome)
}

/// Assigns each rank its share of the host's cores, unless OMP_NUM_THREADS is set: otherwise each unbound
/// rank would use all cores.
private func shareThreads(_ communicator: Communicator) {
    guard ProcessInfo.processInfo.environment["OMP_NUM_THREADS"] == nil else { return }
    let allowed = ProcessInfo.processInfo.activeProcessorCount
    let isBound = allowed < ProcessInfo.processInfo.processorCount
    Processor.setThreads(isBound ? allowed : max(1, allowed / communicator.localSize))
}

extension Communicator {
    /// How one rank's program ended, in the message that the ranks exchange at the end.
    private struct Ending {
        enum Kind: Int64 {
            case success = 0
            case ownError = 1
            case remoteError = 2
            /// The rank has failed, and asks whether the others have failed as well.
            case meeting = 3
        }
        var kind: Kind
        var exitStatus: Int64
        var messageHash: Int64
    }

    /// Seconds that a failed rank waits for the others to fail as well before it aborts the job.
    private static let patience = 5.0

    fileprivate func sayFarewell(_ outcome: Result<Void, any Error>) -> Int32 {
        var own = Ending(kind: .success, exitStatus: 0, messageHash: 0)
        var report = FailureReport(message: "", exitStatus: 0)
        if case .failure(let error) = outcome {
            report = FailureReport(error)
            own = Ending(
                kind: error is RemoteFailure ? .remoteError : .ownError,
                exitStatus: Int64(report.exitStatus), messageHash: Int64(bitPattern: fnv1a(report.message)))
            if error is CommunicationError { endJob(report) }
        }
        guard abandonedRequests == 0, let endings = exchange(own) else { endJob(report) }

        let failures = endings.indices.filter { [.ownError, .meeting].contains(endings[$0].kind) }
        // Print one error for a common fault, that of the lowest rank: a full disk is full for all ranks.
        let reporting = failures.filter { endings[$0].messageHash != Int64(bitPattern: fnv1a("")) }
        if rank == reporting.first {
            // Print the rank unless all ranks report the same error.
            let isCommon = endings.allSatisfy { $0.messageHash == own.messageHash }
            let others = reporting.filter { endings[$0].messageHash != own.messageHash }.count
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

    /// Whether all ranks call this within the given time. Called by a rank that has failed, to determine whether the
    /// others have failed too. If this returns false, the rank can only abort the job.
    package func meetsAllRanks(within seconds: Double) -> Bool {
        guard usesMPI else { return true }
        let own = Ending(
            kind: .meeting, exitStatus: Int64(ExitStatus.crash), messageHash: Int64(bitPattern: fnv1a("")))
        guard let endings = exchange(own, patience: seconds) else { return false }
        return endings.allSatisfy { $0.kind == .meeting }
    }

    /// The outcomes of all ranks; nil if this rank failed and the others do not respond in time.
    private func exchange(_ own: Ending, patience: Double = patience) -> [Ending]? {
        let mine = UnsafeMutablePointer<Int64>.allocate(capacity: 3)
        let all = UnsafeMutablePointer<Int64>.allocate(capacity: 3 * size)
        // Not freed if the others do not respond: the request is then still open, and the job ends.
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
            usleep(500)  // Leave the core to ranks that are still computing.
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
            report.message.isEmpty ? "the ranks could not shut down together" : report.message, rank: rank)
        abort(code)
    }
}

private func printEnd(_ report: FailureReport, rank: Int?) {
    // A requested stop is not an error.
    guard report.exitStatus == ExitStatus.runAgain else { return printError(report.message, rank: rank) }
    Console.error.write(report.message.prefix(1).uppercased() + report.message.dropFirst() + "\n")
}

private func printError(_ message: String, rank: Int?) {
    guard !message.isEmpty else { return }
    let place = rank.map { " (rank \($0))" } ?? ""
    Console.error.write("Error\(place): \(message)\n")
}

/// Information about this program.
package enum Program {
    package static let version = "0.1.0"

    /// The first part of the MPI library's version text: "Open MPI v4.1.4, package: …".
    package static var mpiVersion: String {
        var text = [CChar](repeating: 0, count: 512)
        mpishim_library_version(&text, text.count)
        return String(String(terminated: text).split(separator: ",").first ?? "no MPI")
    }

    /// The vector instruction sets, and the kernels that are used for them.
    package static var processor: String { "\(Processor.features) (\(Backend.fastest.summary))" }

    /// The CRC-32C checksum of a program's file, to compare builds.
    package static func checksum(of path: String) -> String {
        var checksum = CRC32C()
        do throws(FileError) {
            let file = try PositionedFile(path)
            try file.readPieces(of: 0..<file.size) { checksum.update($0) }
        } catch {
            return "unreadable"
        }
        return checksum.text
    }
}
