import Communication
import Foundation
import Supervision
import Support

/// Ways in which one rank can fail while the others continue.
struct FailureScenario {
    private let communicator: any Communicator
    private let fails: Bool

    init(_ communicator: any Communicator, failingRank: Int) {
        self.communicator = communicator
        fails = communicator.rank == failingRank
    }

    func run(_ scenario: SelfTestCommand.Communication.Scenario) throws {
        let refusal = LaunchError("shard 7 is cut short", exitStatus: ExitStatus.refused)
        switch scenario {
        case .agreedFailure:
            try communicator.collectively("opening the dataset") {
                if fails { throw refusal }
            }
        case .commonFailure:
            throw LaunchError("no such key", exitStatus: ExitStatus.usage)
        case .loneFailure:
            if fails { throw refusal }
            try communicator.barrier()
        case .failureInReduction:
            try failInReduction(refusal)
        case .death:
            if fails { kill(getpid(), SIGKILL) }
            try communicator.barrier()
        case .earlyExit:
            if fails { exit(0) }
            try communicator.barrier()
        case .collectives, .forever:
            break
        }
        print("rank \(communicator.rank) came through")
    }

    private func failInReduction(_ refusal: LaunchError) throws {
        let count = 1 << 20
        let gradients = UnsafeMutablePointer<Float>.allocate(capacity: count)
        gradients.initialize(repeating: 1, count: count)
        let reducer = BucketReducer(
            communicator: communicator, gradients: gradients, buckets: [0..<count / 2, count / 2..<count],
            slices: FlatSlices(count: count, ranks: communicator.size), sharding: .none, overlaps: true)
        reducer.bucketReady(0)
        if fails { throw refusal }
        try reducer.finish()
    }
}
