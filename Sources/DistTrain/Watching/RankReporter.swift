import Foundation
import Synchronization

/// A thread of every rank but 0 that tells rank 0 what the rank is doing, and ends the process when rank 0 says so or
/// is lost.
final class RankReporter: Sendable {
    private let activity: RankActivity
    private let rank: Int
    private let host: String
    private let silence: Double
    private let wantsToLeave = Atomic<Bool>(false)
    private let ended = DispatchSemaphore(value: 0)

    /// - Returns: nil where rank 0 cannot be reached; the rank then goes unwatched.
    init?(
        to watcher: WatcherAddress, rank: Int, host: String, activity: RankActivity, limits: WatchLimits
    ) {
        (self.rank, self.host, self.activity) = (rank, host, activity)
        silence = limits.silence
        guard let connection = Self.connect(to: watcher, rank: rank, host: host) else { return nil }
        // Used by the thread alone from here on.
        nonisolated(unsafe) let own = connection
        startThread("rank reporter") { [self] in
            report(own)
            ended.signal()
        }
    }

    /// Says farewell and waits until it is on its way.
    func leave() {
        wantsToLeave.store(true, ordering: .relaxed)
        ended.wait()
    }

    private static func connect(to watcher: WatcherAddress, rank: Int, host: String) -> LineConnection? {
        let local = watcher.host == host ? ["127.0.0.1"] : []
        for address in local + watcher.addresses where host == watcher.host || !address.hasPrefix("127.") {
            guard let descriptor = TCP.connect(address, watcher.port, timeout: 2) else { continue }
            let connection = LineConnection(descriptor)
            connection.send(
                RankMessage(
                    hello: RankMessage.Hello(token: watcher.token, rank: rank, host: host, pid: getpid())))
            // An address may lead to another host's port of that number.
            let deadline = monotonicSeconds() + 3
            while monotonicSeconds() < deadline, !connection.isClosed {
                if !connection.receive(WatcherMessage.self).isEmpty { return connection }
                usleep(10_000)
            }
        }
        return nil
    }

    private func report(_ connection: LineConnection) {
        var heardAt = monotonicSeconds()
        var toldAt = -Double.infinity
        var lookedAt = heardAt
        while true {
            var request = pollfd(fd: connection.descriptor, events: Int16(POLLIN), revents: 0)
            poll(&request, 1, Int32(WatchPace.look * 1000))
            let now = monotonicSeconds()
            if now - lookedAt > WatchPace.doze { heardAt = now }
            lookedAt = now
            for message in connection.receive(WatcherMessage.self) {
                heardAt = now
                if message.bye == true { return }
                if message.end != nil { _exit(ExitStatus.crash) }  // Rank 0 has said why.
            }
            if wantsToLeave.load(ordering: .relaxed) {
                connection.send(RankMessage(bye: true))
                return connection.flush()
            }
            if connection.isClosed { end("rank 0 on the watching host has died") }
            if now - heardAt > silence {
                end(
                    "rank 0 has not been heard for \(duration(silence)): its host is down or cut off, or it is stopped"
                )
            }
            if now - toldAt >= WatchPace.beat {
                connection.send(RankMessage(reading: activity.reading))
                toldAt = now
            }
            connection.flush()
        }
    }

    private func end(_ reason: String) -> Never {
        let own = activity.reading
        Console.error.write(
            "Error (rank \(rank) on \(host)): step \(own.step): \(reason); this rank was \(own.phase.words)\n"
        )
        _exit(ExitStatus.crash)
    }
}

/// A detached thread that takes no signals.
func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = Thread(block: body)
    thread.name = name
    // Signals are for the thread that has set up their handlers.
    var all = sigset_t()
    var previous = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
    thread.start()
    pthread_sigmask(SIG_SETMASK, &previous, nil)
}
