import ArgumentParser
import Foundation

/// Checks of what only a real run can show. For the integration tests and for support, hence hidden.
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

        /// What the run is to show.
        enum Scenario: String, CaseIterable, ExpressibleByArgument {
            /// Every collective gives the right result.
            case collectives
            /// One rank's body of `collectively` throws.
            case agreedFailure = "agreed-failure"
            /// Every rank finds the same fault by itself.
            case commonFailure = "common-failure"
            /// One rank throws while the others wait in a collective.
            case loneFailure = "lone-failure"
            /// One rank throws in the middle of a gradient reduction.
            case failureInReduction = "failure-in-reduction"
            /// One rank dies without a word.
            case death
            /// One rank leaves with exit(0) in the middle.
            case earlyExit = "early-exit"
            /// Works until it is stopped from outside.
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
