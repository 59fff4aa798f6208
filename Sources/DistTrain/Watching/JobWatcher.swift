import Foundation
import Synchronization

/// Watches all ranks of a job, so that none of them waits for ever for one that is dead or hung.
///
/// MPI has no time limits: a rank whose peer has died, is stopped or is cut off spins in a collective for ever. Here a
/// thread of every rank tells a thread of rank 0, over a TCP connection of its own, what the rank is doing. Rank 0 keeps
/// `status.json`; when a rank is gone, silent or does not get on, it says which, and where the others wait for it, and
/// all end at once. When rank 0 itself is lost, the others notice the same way.
public final class JobWatcher: Sendable {
    public let activity = RankActivity()
    private let reporter: RankReporter?
    private let post: WatchPost?

    /// Collective.
    ///
    /// - Parameters:
    ///   - run: the folder of `status.json`.
    ///   - warn: told, on rank 0, of ranks that go unwatched.
    public init(
        run: String, name: String, steps: Int, limits: WatchLimits, communicator: any Communicator,
        warn: (String) -> Void
    ) throws {
        let host = communicator.hostName
        let listener = communicator.isRoot && communicator.size > 1 ? TCP.listen() : nil
        let token = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        let address = try communicator.broadcast(
            WatcherAddress(
                host: host, addresses: communicator.isRoot ? TCP.addresses() : [], port: listener?.port ?? 0,
                token: token))
        if communicator.isRoot {
            post = WatchPost(
                run: run, name: name, steps: steps, host: host, ranks: communicator.size,
                listener: listener?.descriptor, token: token, limits: limits, activity: activity)
            reporter = nil
        } else {
            post = nil
            reporter =
                address.port == 0
                ? nil
                : RankReporter(
                    to: address, rank: communicator.rank, host: host, activity: activity, limits: limits)
        }
        let isWatched = communicator.isRoot || reporter != nil
        let places = try communicator.allGather(isWatched ? "" : host)
        let unwatched = places.filter { !$0.isEmpty }
        if communicator.isRoot, !unwatched.isEmpty {
            warn(
                "\(unwatched.count) ranks cannot reach rank 0 on \(address.addresses.joined(separator: ", ")) "
                    + "(\(Set(unwatched).sorted().joined(separator: ", "))) and go unwatched: if they hang, nobody notices"
            )
        }
        for (rank, place) in places.enumerated() where !place.isEmpty { post?.forget(rank) }
    }

    /// Tells of a logged step; for rank 0.
    public func note(_ progress: JobStatus.Progress) { post?.note(progress) }

    /// Tells of a committed checkpoint; for rank 0.
    public func note(checkpoint step: Int) { post?.note(checkpoint: step) }

    /// Publishes why checkpoints cannot be saved; nil when they can. For rank 0.
    public func note(alarm: String?) { post?.note(alarm: alarm) }

    /// Ends the watching. On every rank, each by itself.
    public func leave(_ state: JobStatus.State, exitStatus: Int32, message: String?) {
        activity.enter(.end)
        reporter?.leave()
        post?.leave(state, exitStatus: exitStatus, message: message)
    }
}
