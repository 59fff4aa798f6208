import ArgumentParser
import Communication
import Foundation
import Supervision
import Support

/// Checks that require a real job. Hidden, because it is for the integration tests and for support.
struct SelfTestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "self-test",
        abstract: "Run internal checks of this installation.",
        shouldDisplay: false,
        subcommands: [Communication.self, Gradients.self, Weights.self, Draws.self])

    struct Communication: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "communication",
            abstract: "Check every collective on the current ranks, or how a failing rank ends the others.")

        /// The scenario to check.
        enum Scenario: String, CaseIterable, ExpressibleByArgument {
            /// Every collective returns the correct result.
            case collectives
            /// The body of `collectively` throws on one rank.
            case agreedFailure = "agreed-failure"
            /// Every rank detects the same error itself.
            case commonFailure = "common-failure"
            /// One rank throws while the others wait in a collective.
            case loneFailure = "lone-failure"
            /// One rank throws during a gradient reduction.
            case failureInReduction = "failure-in-reduction"
            /// One rank dies without a message.
            case death
            /// One rank calls exit(0) while the others continue.
            case earlyExit = "early-exit"
            /// Runs until it is stopped from outside.
            case forever
        }

        @Option(name: .long, help: "Scenario to run.")
        var scenario: Scenario = .collectives

        @Option(name: .long, help: "The rank that fails, in scenarios with a failure.")
        var failingRank = 0

        func run() throws {
            try onAllRanks { communicator in
                switch scenario {
                case .collectives:
                    try CommunicationCheck(communicator).run()
                case .forever:
                    print("rank \(communicator.rank) of \(communicator.size) waits, process \(getpid())")
                    fflush(nil)
                    while true { try communicator.barrier() }
                default:
                    try FailureScenario(communicator, failingRank: failingRank).run(scenario)
                }
            }
        }
    }
}

/// Ways in which one rank can fail while the others continue.
struct FailureScenario {
    private let communicator: Communicator
    private let fails: Bool

    init(_ communicator: Communicator, failingRank: Int) {
        self.communicator = communicator
        fails = communicator.rank == failingRank
    }

    func run(_ scenario: SelfTestCommand.Communication.Scenario) throws {
        let refusal = LaunchError("shard 7 is truncated", exitStatus: ExitStatus.refused)
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
        print("rank \(communicator.rank) completed the scenario")
    }

    private func failInReduction(_ refusal: LaunchError) throws {
        let count = 1 << 20
        let gradients = UnsafeMutablePointer<Float>.allocate(capacity: count)
        gradients.initialize(repeating: 1, count: count)
        let reducer = BucketReducer(
            communicator: communicator, gradients: gradients, buckets: [0..<count / 2, count / 2..<count],
            slices: ShardLayout(count: count, ranks: communicator.size), sharding: .none, overlaps: true)
        reducer.bucketReady(0)
        if fails { throw refusal }
        try reducer.finish()
    }
}
