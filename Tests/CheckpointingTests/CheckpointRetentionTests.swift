import Checkpointing
import Communication
import Foundation
import Testing
import TestSupport

@Suite struct CheckpointRetentionTests {
    private typealias Standing = Retention.Standing

    private func loss(_ step: Int, _ value: Double) -> Standing {
        Standing(step: step, metric: CheckpointMetric(name: "loss", value: value))
    }

    @Test func theNewestStayWhateverTheirOrder() {
        let steps = [3, 1, 2].map { Standing(step: $0) }
        #expect(Retention(keepLast: 1).expired(of: steps) == [1, 2])
        #expect(Retention(keepLast: 5).expired(of: steps) == [])
        // At least one checkpoint is always kept.
        #expect(Retention(keepLast: 0).expired(of: [Standing(step: 5)]) == [])
        #expect(Retention(keepLast: 1, keepEvery: 2).expired(of: steps) == [1])
    }

    @Test func theBestStayWhateverTheirAge() {
        let steps = [loss(1, 0.5), loss(2, 0.2), loss(3, 0.9), loss(4, 0.2), loss(5, 0.7), Standing(step: 6)]
        #expect(Retention(keepLast: 1, keepBest: 1).expired(of: steps) == [1, 2, 3, 5])
        #expect(Retention(keepLast: 1, keepBest: 2).expired(of: steps) == [1, 3, 5])
        #expect(Retention(keepLast: 1, keepBest: 3).expired(of: steps) == [3, 5])
        #expect(Retention(keepLast: 1, keepBest: 99).expired(of: steps) == [])
        // Values of different metrics are not comparable.
        let other = [Standing(step: 0, metric: CheckpointMetric(name: "fid", value: 0.1))]
        #expect(Retention(keepLast: 1, keepBest: 1).expired(of: other + steps) == [0, 1, 2, 3, 5])
    }

    @Test func aDamagedOneNeverCostsAGoodOneItsPlace() {
        let steps = [
            Standing(step: 1), Standing(step: 2, state: .damaged), Standing(step: 3),
            Standing(step: 4, state: .foreign),
            Standing(step: 5), Standing(step: 6, state: .damaged),
        ]
        #expect(Retention(keepLast: 1).expired(of: steps) == [1, 2, 3])
        #expect(Retention(keepLast: 2).expired(of: steps) == [1, 2])
        #expect(Retention(keepLast: 3).expired(of: steps) == [])
        #expect(Retention(keepLast: 4).expired(of: steps) == [])
    }

    @Test func aRunKeepsItsBest() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(folders: ["unet"], seed: 1)
        let writer = try CheckpointWriter(
            folder: folder, table: state.table, run: checkpointRun,
            retention: Retention(keepLast: 2, keepBest: 1), communicator: Communicator())
        for (step, value) in [(10, 0.9), (20, 0.1), (30, 0.8), (40, 0.5), (50, 0.6)] {
            var training = state.state(step: step)
            training.metric = CheckpointMetric(name: "loss", value: value)
            try writer.save(training)
        }
        #expect(try folder.steps() == [20, 40, 50])
        // The two newest checkpoints lack a file, so the older one is kept.
        for step in [40, 50] {
            try FileManager.default.removeItem(atPath: "\(folder.path(step: step))/unet/config.json")
        }
        #expect(try folder.prune(Retention(keepLast: 1)) == [])
        #expect(try folder.steps() == [20, 40, 50])
    }
}
