import Communication
import Foundation
import Support
import Testing

// Tests/Integration/test_communication.sh tests the collectives under mpirun.

@Suite struct LaunchEnvironmentTests {
    @Test(arguments: [
        ([:], LaunchEnvironment.alone),
        (["OMPI_COMM_WORLD_SIZE": "4"], .rank(of: 4)),
        (["PMI_RANK": "1", "PMI_SIZE": "3"], .rank(of: 3)),
        (["PMIX_RANK": "0"], .rank(of: nil)),
        (["PMIX_RANK": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"], .rank(of: 2)),
        (["SLURM_PROCID": "0", "PMI_FD": "7", "SLURM_STEP_NUM_TASKS": "2"], .rank(of: 2)),
        // A program that a batch script runs without srun: Slurm's batch step sets SLURM_PROCID=0.
        (["SLURM_PROCID": "0", "SLURM_NTASKS": "8"], .alone),
        (["SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"], .alone),
    ])
    func isToldByTheLauncher(environment: [String: String], expected: LaunchEnvironment) throws {
        #expect(try LaunchEnvironment(environment) == expected)
    }

    @Test func refusesSeveralProcessesThatCannotMeet() {
        let error = #expect(throws: CommunicationError.self) {
            try LaunchEnvironment(["SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"])
        }
        #expect(error?.message.contains("srun --mpi=pmix") == true)
    }

    @Test func onlyRankZeroSpeaksForAll() {
        #expect(LaunchEnvironment.speaksForAll([:]))
        #expect(LaunchEnvironment.speaksForAll(["OMPI_COMM_WORLD_RANK": "0"]))
        #expect(!LaunchEnvironment.speaksForAll(["OMPI_COMM_WORLD_RANK": "3"]))
        #expect(!LaunchEnvironment.speaksForAll(["PMI_RANK": "1"]))
    }
}

@Suite struct SingleProcessCommunicatorTests {
    private struct Fault: Error, Equatable {}

    @Test func startsWithoutMPI() throws {
        let communicator = try Communicator.open(environment: [:])
        #expect(!communicator.usesMPI && !Communicator.isMPIRunning)
        #expect((communicator.rank, communicator.size) == (0, 1))
        #expect((communicator.localRank, communicator.localSize) == (0, 1))
    }

    @Test func collectivesLeaveValuesAsTheyAre() throws {
        let communicator = Communicator()
        var values = [1.5, -2.0]
        try communicator.allReduceMean(&values)
        #expect(values == [1.5, -2.0])
        #expect(try communicator.allReduceMax(7) == 7)
        #expect(try communicator.broadcast("text") == "text")
        #expect(try communicator.broadcast(["a": 1]) == ["a": 1])
        #expect(try communicator.allGather([1, 2, 3] as [UInt8]) == [[1, 2, 3]])
        #expect(try communicator.allGather(5) == [5])
        #expect(try communicator.allAgree(true))
        #expect(try !communicator.allAgree(false))
        #expect(try communicator.allEqual(.max))
    }

    @Test func reduceScatterCopies() throws {
        let communicator = Communicator()
        let values: [Float] = [1, 2, 3]
        var slice = [Float](repeating: 0, count: 3)
        try values.withUnsafeBufferPointer { values in
            try slice.withUnsafeMutableBufferPointer {
                try communicator.reduceScatterSum(values, counts: [3], into: $0)
            }
        }
        #expect(slice == values)
    }

    @Test func failsWithItsOwnError() throws {
        let communicator = Communicator()
        #expect(throws: Fault.self) { try communicator.collectively("a trial") { throw Fault() } }
        #expect(try communicator.collectively("a trial") { 3 } == 3)
        #expect(try communicator.fromRoot("a trial") { "value" } == "value")
    }

    @Test func bucketsCostNothing() throws {
        var gradients: [Float] = [1, 2, 3, 4]
        try gradients.withUnsafeMutableBufferPointer { buffer in
            let start = try #require(buffer.baseAddress)
            let reducer = BucketReducer(
                communicator: Communicator(), gradients: start, buckets: [2..<4, 0..<2],
                slices: ShardLayout(count: 4, ranks: 1), sharding: .optimizer)
            for _ in 0..<2 {
                reducer.bucketReady(0)
                reducer.progress()
                reducer.bucketReady(1)
                #expect(try reducer.finish() == (0, 0))
            }
        }
        #expect(gradients == [1, 2, 3, 4])
    }

    @Test func bucketThatIsReadyTwiceStopsTheProgram() async {
        await #expect(processExitsWith: .failure) {
            let gradients = UnsafeMutablePointer<Float>.allocate(capacity: 1)
            let reducer = BucketReducer(
                communicator: Communicator(), gradients: gradients, buckets: [0..<1],
                slices: ShardLayout(count: 1, ranks: 1), sharding: .optimizer)
            reducer.bucketReady(0)
            reducer.bucketReady(0)
        }
    }
}

@Suite struct FailureReportTests {
    private struct Plain: Error {}

    @Test func reportableErrorsKeepTheirWordsAndCode() {
        let error = CommunicationError(operation: "barrier", reason: "no ranks")
        #expect(
            FailureReport(error)
                == FailureReport(
                    message: "communication failed in barrier: no ranks", exitStatus: ExitStatus.crash))
        #expect("\(error)" == error.message)
    }

    @Test func anyOtherErrorIsACrash() {
        #expect(FailureReport(Plain()).exitStatus == ExitStatus.crash)
        #expect(FailureReport(Plain()).message == "Plain()")
    }

    @Test func namesOutOfFilesCannotBreakTheLine() {
        let name = "a\nError: all is well\u{1b}[2J" + String(repeating: "x", count: 1_000_000)
        let error = RunError("holds \(name), expected latent", exitStatus: ExitStatus.refused)
        let report = FailureReport(error)
        #expect("\(error)" == report.message)
        #expect(report.message.hasPrefix("holds a\\u{a}Error: all is well\\u{1b}[2Jxxx"))
        #expect(report.message.hasSuffix("xxx, expected latent"))
        #expect(report.message.utf8.count < 20_000)
        #expect(report.exitStatus == ExitStatus.refused)
    }

    @Test func missingFilesAreNamed() {
        #expect {
            _ = try Data(contentsOf: URL(fileURLWithPath: "/no/such/file.bin"))
        } throws: { error in
            FailureReport(error).message.contains("file.bin")
        }
    }
}
