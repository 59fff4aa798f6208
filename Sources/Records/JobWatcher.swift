import Communication
import Foundation
import Support
import Synchronization

/// Watches all ranks of a job, so that none of them waits for ever for one that is dead or hung.
///
/// MPI has no time limits: a rank whose peer has died, is stopped or is cut off spins in a collective for ever. Here a
/// thread of every rank reports to a thread of rank 0, over a TCP connection of its own, what the rank is doing. When a
/// rank is gone, silent or makes no progress, rank 0 reports which, and where the others wait for it, and all end at
/// once. When rank 0 itself is lost, the others notice the same way.
///
/// Both ends of each connection prove that they belong to the job (`WatchChannel`). Neither thread touches a disk.
package final class JobWatcher: Sendable {
    package let activity = RankActivity()
    private let reporter: RankReporter?
    private let post: WatchPost?
    private let hasLeft = Atomic<Bool>(false)

    /// Starts to watch. Collective; to be called right after MPI's start, since nothing is watched before.
    ///
    /// - Parameter warn: called, on rank 0, with a line about ranks that go unwatched.
    package init(
        limits: WatchLimits, communicator: any Communicator, warn: @escaping @Sendable (String) -> Void
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
                    + "(\(Set(unwatched).sorted().joined(separator: ", "))) and go unwatched: if they hang, nobody notices"
            )
        }
        for (rank, place) in places.enumerated() where !place.isEmpty { post?.forget(rank) }
    }

    /// Listens on rank 0, where there are other ranks, at the addresses by which their hosts reach it. Collective.
    private static func serve(
        _ communicator: any Communicator, _ warn: @escaping @Sendable (String) -> Void
    ) throws -> WatchServer? {
        guard communicator.size > 1 else { return nil }
        let network = HostNetwork.own
        let isAlone = try communicator.allAgree(communicator.localSize == communicator.size)
        // One rank of each host names its addresses.
        let everyones = try communicator.allGather(
            isAlone || communicator.localRank != 0 ? [] : network.interfaces.map(\.address))
        guard communicator.isRoot else { return nil }
        let addresses = network.listeningAddresses(
            peers: everyones.dropFirst().filter { !$0.isEmpty },
            chosen: ProcessInfo.processInfo.environment["OMPI_MCA_btl_tcp_if_include"])
        let wanted = communicator.size + WatchServer.spare + 2 * (communicator.size - communicator.localSize)
        if let line = OpenFileLimit.shortage(of: wanted, for: "connections to \(communicator.size) ranks") {
            warn("\(line), or ranks may go unwatched")
        }
        return WatchServer(
            addresses: addresses, ranks: communicator.size, secret: WatchSecret.random(), warn: warn)
    }

    /// Keeps `status.json` in a run's folder from now on; on rank 0, which must hold the folder's lock.
    package func keepStatus(in run: String, name: String, steps: Int) {
        post?.keepStatus(in: run, name: name, steps: steps)
    }

    /// Notes a logged step for `status.json`; on rank 0.
    package func note(_ progress: JobStatus.Progress) { post?.note(progress) }

    /// Notes a committed checkpoint for `status.json`; on rank 0.
    package func note(checkpoint step: Int) { post?.note(checkpoint: step) }

    /// Publishes why checkpoints cannot be saved; nil when they can. For rank 0.
    package func note(alarm: String?) { post?.note(alarm: alarm) }

    /// Ends the watching. On every rank, each by itself; the second time it does nothing. Waits for at most 10 s where
    /// the disk of `status.json` does not answer.
    package func leave(_ state: JobStatus.State, exitStatus: Int32, message: String?) {
        guard !hasLeft.exchange(true, ordering: .relaxed) else { return }
        activity.enter(.end)
        reporter?.leave()
        post?.leave(state, exitStatus: exitStatus, message: message)
    }
}

extension JobWatcher {
    /// Watches all ranks while `body` runs, and ends the watching as it ends. Collective.
    package static func watch(
        _ communicator: any Communicator, _ limits: WatchLimits, _ body: (JobWatcher) throws -> Void
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

/// Runs a program on every rank, as `runOnAllRanks(_:)` does, and watches all ranks from MPI's start to their end.
package func runOnAllRanks(
    watchedBy limits: WatchLimits, _ body: (any Communicator, JobWatcher) throws -> Void
) -> Int32 {
    runOnAllRanks { communicator in
        try JobWatcher.watch(communicator, limits) { try body(communicator, $0) }
    }
}
