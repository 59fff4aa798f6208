import Communication
import Foundation
import Support
import Synchronization

/// Monitors all ranks of a job, so that no rank waits forever for one that is dead or hung.
///
/// MPI has no timeouts: a rank whose peer has died, is stopped or is unreachable spins in a collective
/// forever. Here, a thread of every rank reports the rank's activity to a thread of rank 0 over a separate
/// TCP connection. If a rank is gone, silent or makes no progress, rank 0 prints which one and where the
/// others wait for it, and all ranks exit at once. The other ranks detect the loss of rank 0 in the same way.
///
/// Both ends of each connection prove that they belong to the job (`WatchChannel`). Neither thread touches a
/// disk.
package final class JobWatcher: Sendable {
    package let activity = RankActivity()
    private let reporter: RankReporter?
    private let post: WatchPost?
    private let hasLeft = Atomic<Bool>(false)

    /// Starts monitoring. Collective. Call it directly after MPI_Init, since nothing before it is monitored.
    ///
    /// - Parameter warn: called on rank 0 with a one-line warning if some ranks cannot be monitored.
    package init(
        limits: WatchLimits, communicator: Communicator, warn: @escaping @Sendable (String) -> Void
    )
        throws
    {
        let host = communicator.hostName
        let server = try Self.serve(communicator, warn)
        let address = try communicator.broadcast(
            WatcherAddress(endpoints: server?.endpoints ?? [], secret: server?.secret ?? WatchSecret.random())
        )
        if communicator.isRoot {
            post = WatchPost(
                host: host, ranks: communicator.size, server: server, limits: limits, activity: activity)
            reporter = nil
        } else {
            post = nil
            reporter = RankReporter(
                to: address, rank: communicator.rank, host: host, activity: activity, limits: limits)
        }
        let isWatched = communicator.isRoot || reporter != nil
        let places = try communicator.allGather(isWatched ? "" : host)
        let unwatched = places.filter { !$0.isEmpty }
        if communicator.isRoot, !unwatched.isEmpty {
            let addresses = address.endpoints.map(\.address).joined(separator: ", ")
            warn(
                "\(unwatched.count) ranks cannot reach rank 0 on \(addresses.isEmpty ? "any address" : addresses) "
                    + "(\(Set(unwatched).sorted().joined(separator: ", "))) and are not monitored: if they hang, the job hangs"
            )
        }
        for (rank, place) in places.enumerated() where !place.isEmpty { post?.forget(rank) }
    }

    /// Starts the server on rank 0, if there are other ranks, at the addresses by which their hosts can reach
    /// it. Collective.
    private static func serve(
        _ communicator: Communicator, _ warn: @escaping @Sendable (String) -> Void
    ) throws -> WatchServer? {
        guard communicator.size > 1 else { return nil }
        let network = HostNetwork.own
        let isAlone = try communicator.allAgree(communicator.localSize == communicator.size)
        // One rank per host contributes its host's addresses.
        let everyones = try communicator.allGather(
            isAlone || communicator.localRank != 0 ? [] : network.interfaces.map(\.address))
        guard communicator.isRoot else { return nil }
        let addresses = network.listeningAddresses(
            peers: everyones.dropFirst().filter { !$0.isEmpty },
            chosen: ProcessInfo.processInfo.environment["OMPI_MCA_btl_tcp_if_include"])
        let wanted = communicator.size + WatchServer.spare + 2 * (communicator.size - communicator.localSize)
        if let line = OpenFileLimit.shortage(of: wanted, for: "connections to \(communicator.size) ranks") {
            warn("\(line), or some ranks may not be monitored")
        }
        return WatchServer(
            addresses: addresses, ranks: communicator.size, secret: WatchSecret.random(), warn: warn)
    }

    /// Writes `status.json` to the run folder from now on. Call it on rank 0, which must hold the folder's
    /// lock.
    package func keepStatus(in run: String, name: String, steps: Int) {
        post?.keepStatus(in: run, name: name, steps: steps)
    }

    /// Publishes the progress of a logged step in `status.json`. On rank 0.
    package func note(_ progress: JobStatus.Progress) { post?.note(progress) }

    /// Publishes the step of a committed checkpoint in `status.json`. On rank 0.
    package func note(checkpoint step: Int) { post?.note(checkpoint: step) }

    /// Publishes why checkpoints cannot be saved; nil clears the alarm. On rank 0.
    package func note(alarm: String?) { post?.note(alarm: alarm) }

    /// Stops monitoring. Every rank calls it, independently of the others; further calls have no effect.
    /// Waits up to 10 s for the disk that holds `status.json`.
    package func leave(_ state: JobStatus.State, exitStatus: Int32, message: String?) {
        guard !hasLeft.exchange(true, ordering: .relaxed) else { return }
        activity.enter(.end)
        reporter?.leave()
        post?.leave(state, exitStatus: exitStatus, message: message)
    }
}

extension JobWatcher {
    /// Monitors all ranks while `body` runs. Collective.
    package static func watch(
        _ communicator: Communicator, _ limits: WatchLimits, _ body: (JobWatcher) throws -> Void
    ) throws {
        let watcher = try JobWatcher(limits: limits, communicator: communicator) {
            printLine("Warning: \($0)")
        }
        do {
            try body(watcher)
            watcher.leave(.finished, exitStatus: ExitStatus.success, message: nil)
        } catch {
            let report = FailureReport(error)
            watcher.leave(
                report.exitStatus == ExitStatus.runAgain ? .stopped : .failed, exitStatus: report.exitStatus,
                message: report.message)
            throw error
        }
    }
}

/// Runs a program on every rank, as `runOnAllRanks(_:)` does, and monitors all ranks from MPI_Init to their
/// exit.
package func runOnAllRanks(
    watchedBy limits: WatchLimits, _ body: (Communicator, JobWatcher) throws -> Void
) -> Int32 {
    runOnAllRanks { communicator in
        try JobWatcher.watch(communicator, limits) { try body(communicator, $0) }
    }
}
