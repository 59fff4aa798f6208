import Checkpointing
import Communication
import DistTrain
import FileFormats
import Foundation
import LDMModel
import Support
import TensorCore
import Testing
import TestSupport

/// Compares reconstructed averages with the same averages tracked during training.
@Suite struct AverageReconstructionTests {
    private static let widths = [0.05, 0.1]

    /// A random walk of weights, the averages of `widths` and one more that is tracked for comparison, and
    /// snapshots of the former.
    private final class Trajectory {
        let state = CheckpointState(folders: widths.map { AverageProfile.power(sigmaRel: $0).name }, seed: 1)
        let averages: [WeightAverage]
        let tracked: WeightAverage
        /// Σ θ and Σ θ² of each weight.
        private var sums: [(first: Double, second: Double)]
        private var updates = 0.0
        private var weights: [Float]

        init(sigmaRel: Double) {
            let (count, start) = (state.count, state.buffers[0].values)
            // Replace extreme weights, whose squares would overflow or vanish.
            let weights = (0..<count).map { abs(start[$0]) <= 1 ? start[$0] : 1 }
            averages = widths.map { WeightAverage(weights, count: count, .init(sigmaRel: $0)) }
            tracked = WeightAverage(weights, count: count, .init(sigmaRel: sigmaRel))
            self.weights = weights
            sums = Array(repeating: (0, 0), count: count)
        }

        /// (Σ (θ − mean)²)^½ of a weight.
        func variation(_ i: Int) -> Double {
            max(0, sums[i].second - sums[i].first * sums[i].first / updates).squareRoot()
        }

        func update(_ number: Int) {
            updates += 1
            var random = CounterRandom(seed: 7, purpose: .test, sample: UInt64(number))
            for i in weights.indices {
                weights[i] += random.uniform(-0.1, 0.1)
                sums[i].first += Double(weights[i])
                sums[i].second += Double(weights[i]) * Double(weights[i])
            }
            for average in averages + [tracked] { average.step(update: number, weights) }
        }

        func save(step: Int, in folder: CheckpointFolder, ranks: Int) throws {
            for (buffer, average) in zip(state.buffers, averages) {
                buffer.values.update(from: average.values, count: state.count)
            }
            _ = try saveCheckpoint(state, step: step, in: folder, ranks: ranks)
        }
    }

    private static func weights(_ average: AverageReconstruction, of name: String) throws -> [Float] {
        var sums: [Double] = []
        for part in average.mixture.parts {
            let values = try WeightFiles(path: part.folder.path).floats(of: name)
            if sums.isEmpty { sums = [Double](repeating: 0, count: values.count) }
            for i in sums.indices { sums[i] += part.factor * Double(values[i]) }
        }
        return sums.map { Float($0) }
    }

    /// By the Cauchy–Schwarz inequality, the error of an average is at most (the distance of the profiles)·(Σ
    /// (θ − c)²)^½, for any c because the difference of the profiles sums to 0. The distance is the fit's
    /// residual times the norm of the profile. The averages also have some fp32 rounding errors.
    @Test(arguments: [(0.08, 20), (0.15, 20), (0.08, 100), (0.05, 50)])
    func isTheAverageThatWasNotKept(sigmaRel: Double, every: Int) throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let run = RunFolder(scratch.path)
        let trajectory = Trajectory(sigmaRel: sigmaRel)
        for update in 0..<200 {
            trajectory.update(update)
            let step = update + 1
            // Save with varying numbers of ranks, and the last one as a checkpoint.
            if step % every == 0 {
                try trajectory.save(
                    step: step, in: step == 200 ? run.checkpoints : run.snapshots, ranks: 1 + step / every % 3
                )
            }
        }
        let average = try AverageReconstruction(sigmaRel: sigmaRel, of: scratch.path)
        #expect(average.step == 200)
        #expect((average.fit.residual < 1e-7) == (sigmaRel == 0.05), "\(average.summary)")
        let profile = PowerProfile(sigmaRel: sigmaRel, step: 200)
        let distance = average.fit.residual * profile.product(profile).squareRoot()
        for entry in trajectory.state.table.entries {
            for (i, found) in try Self.weights(average, of: entry.name).enumerated() {
                let expected = trajectory.tracked.values[entry.offset + i]
                let allowed = distance * trajectory.variation(entry.offset + i) + 1e-5
                #expect(abs(Double(found) - Double(expected)) <= allowed, "\(entry.name)[\(i)]")
            }
        }
    }

    @Test func theStepMayBeAnEarlierOne() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let run = RunFolder(scratch.path)
        let trajectory = Trajectory(sigmaRel: 0.1)
        for update in 0..<30 {
            trajectory.update(update)
            if update % 10 == 9 { try trajectory.save(step: update + 1, in: run.snapshots, ranks: 1) }
        }
        let early = try AverageReconstruction(sigmaRel: 0.08, of: scratch.path, atStep: 20)
        #expect(early.step == 20 && early.mixture.parts.count == 4)
        let named = try AverageReconstruction(sigmaRel: 0.08, of: run.snapshots.path(step: 20))
        #expect(named.fit.factors == early.fit.factors)
        #expect(try AverageReconstruction(sigmaRel: 0.08, of: run.snapshots.path).step == 30)

        func refusal(_ sigmaRel: Double, _ path: String, _ step: Int? = nil) -> RunError? {
            #expect(throws: RunError.self) {
                try AverageReconstruction(sigmaRel: sigmaRel, of: path, atStep: step)
            }
        }
        #expect(
            refusal(0.08, scratch.path, 25)?.message.hasSuffix("step 25, expected one of 10, 20, 30") == true)
        #expect(refusal(0.08, run.snapshots.path(step: 20), 10)?.message.contains("is of step 20") == true)
        #expect(refusal(0.29, scratch.path)?.exitStatus == ExitStatus.usage)
        #expect(refusal(0, scratch.path)?.message.contains("less than 1/√12") == true)
        #expect(refusal(.nan, scratch.path) != nil)
        #expect(refusal(0.08, "/dev/shm/none-of-this")?.message.contains("ema.sigma_rel") == true)
    }

    /// A snapshot contains only averages; any other checkpoint must contain the model's own weights.
    @Test func snapshotsHaveNoWeightsOfTheModel() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = CheckpointFolder(scratch.path)
        let snapshot = CheckpointState(folders: ["ema-power-0.05", "ema-power-0.1"], seed: 1)
        let opened = try Checkpoint(opening: saveCheckpoint(snapshot, step: 1, in: folder, ranks: 2))
        try opened.verify()
        #expect(
            throws: CheckpointError.self,
            performing: { try opened.checkFits(CheckpointState().buffers, snapshot.table) })
        let moments = CheckpointState(folders: ["ema-power-0.05", "exp_avg"], seed: 1)
        let error = #expect(throws: CheckpointError.self) {
            try Checkpoint(opening: saveCheckpoint(moments, step: 2, in: folder, ranks: 1))
        }
        #expect(error?.message.contains("does not list the model's folder 'unet'") == true)
    }

    /// Both kinds of saves share the copy of the state, and each writes to its own folder.
    @Test func snapshotsAreSavedBesideCheckpoints() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let run = RunFolder(scratch.path)
        let state = CheckpointState(folders: ["unet", "ema-power-0.05", "ema-power-0.1", "exp_avg"], seed: 3)
        let writer = try CheckpointWriter(
            folder: run.checkpoints, snapshots: run.snapshots, table: state.table, run: checkpointRun,
            retention: Retention(keepLast: 1), communicator: Communicator())
        for step in 1...4 {
            try writer.beginSnapshot(
                TrainingState(step: step, samplesSeen: 0, buffers: Array(state.buffers[1...2])))
            try writer.begin(state.state(step: step))
        }
        try writer.finish(within: 0)
        #expect(try run.checkpoints.steps() == [4])
        #expect(try run.snapshots.steps() == [1, 2, 3, 4])
        let back = CheckpointState(folders: ["ema-power-0.05", "ema-power-0.1"])
        let snapshot = try Checkpoint(opening: run.snapshots.path(step: 2))
        #expect(snapshot.manifest.folders == ["ema-power-0.05", "ema-power-0.1"])
        try snapshot.load(into: back.buffers, back.table)
        #expect(back.bits() == Array(state.bits()[1...2]))
    }
}
