import ArgumentParser
import Foundation

/// Checks that require a real job. Hidden, because it is for the integration tests and for support.
struct SelfTestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "self-test",
        abstract: "Check this installation from the inside.",
        shouldDisplay: false,
        subcommands: [Communication.self, Gradients.self, Weights.self, Draws.self])

    struct Communication: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "communication",
            abstract: "Check every collective on the ranks at hand, or how a failing rank ends the others.")

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

        @Option(name: .long, help: "What the run is to show.")
        var scenario: Scenario = .collectives

        @Option(name: .long, help: "The rank that fails, in the scenarios in which one does.")
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
