import Checkpointing
import Communication
import DistTrain
import Evaluation
import Foundation
import LDMModel

/// Saves a U-Net's training state while it trains on random data. Measures how long a step stops, the total
/// cost of a save, and the write throughput in comparison with a plain writer of the same number of bytes.
package struct CheckpointBenchmark {
    package var step: StepBenchmark
    /// An existing folder on the disk to measure. Files that are written there are removed again.
    package var folder: String
    /// Number of saves, plain writes and loads without concurrent training, in alternation; the medians are
    /// reported.
    package var repeats: Int
    /// Additionally loads a checkpoint with the layout of this number of ranks; nil: does not.
    package var savedBy: Int?

    package init(step: StepBenchmark, folder: String, repeats: Int = 1, savedBy: Int? = nil) {
        precondition(repeats > 0 && savedBy ?? 1 > 0, "\(repeats) repeats, saved by \(savedBy ?? 1)")
        (self.step, self.folder, self.repeats, self.savedBy) = (step, folder, repeats, savedBy)
    }

    /// Runs the benchmark. Collective.
    package func run(_ communicator: Communicator) throws -> Result {
        let model = try UNet2DModel.forTraining(step.unet)
        model.store.initialize(seed: 0)
        let training = try step.makeStep(model, communicator)
        let path = try communicator.fromRoot("making a folder in \(folder)") {
            let path = "\(folder)/disttrain-bench-\(UInt32.random(in: 0...UInt32.max))"
            guard mkdir(path, 0o755) == 0 else {
                throw CheckpointError.system(path, "cannot be created")
            }
            return path
        }
        defer { if communicator.isRoot { try? FileManager.default.removeItem(atPath: path) } }

        let table = TensorTable(model.store)
        let writer = try CheckpointWriter(
            folder: CheckpointFolder(path), table: table,
            run: RunIdentity(
                name: "bench", seed: 0, configuration: "name: bench\n",
                modelConfig: try model.config.jsonText(), programVersion: Program.version),
            retention: Retention(keepLast: 1, keepEvery: 0), communicator: communicator)
        let buffers = training.state.buffers(modelFolder: "unet")
        func state(_ step: Int) -> TrainingState {
            TrainingState(step: step, samplesSeen: step, metric: nil, buffers: buffers)
        }
        func timed(_ body: () throws -> Void) throws -> Double {
            try communicator.barrier()
            let start = ContinuousClock.now
            try body()
            return try communicator.allReduceMax((ContinuousClock.now - start).seconds)
        }

        // The first save takes the snapshot's memory.
        _ = try training(0)
        try writer.save(state(1))
        var seconds: [Double] = []
        var number = 1
        for _ in 0..<step.steps {
            seconds.append(try timed { _ = try training(number) })
            number += 1
        }
        let stepSeconds = seconds.sorted()[seconds.count / 2]

        // A save while training continues.
        let start = ContinuousClock.now
        let stall = try timed { try writer.begin(state(number)) }
        var cost = stall
        while writer.isSaving {
            cost +=
                try timed {
                    let result = try training(number, votes: StepVotes(saving: writer.working))
                    try writer.advance(result.votes.saving)
                } - stepSeconds
            number += 1
        }
        try writer.finish(within: 0)
        let save = (ContinuousClock.now - start).seconds

        let peak = try communicator.allReduceMax(peakResidentMiB())
        // Saves without concurrent training, alternating with the plain writer. Loading modifies the weights,
        // so complete the transfers that are in flight.
        try training.completeWeights()
        var alone = (save: [Double](), plain: [Double](), load: [Double](), other: [Double]())
        var bytes = 0
        for _ in 0..<repeats {
            number += 1
            // Otherwise the next save would include the deletion of the previous checkpoint.
            try communicator.collectively("deleting a checkpoint") {
                let saved = CheckpointFolder(path)
                if communicator.isRoot { for step in try saved.steps() { try saved.remove(step: step) } }
            }
            alone.save.append(try timed { try writer.save(state(number)) })
            let newest = try Checkpoint(opening: CheckpointFolder(path).path(step: number))
            bytes = newest.manifest.files.reduce(0) { $0 + $1.bytes }
            let share = bytes / communicator.size
            alone.plain.append(
                try timed { try PlainFile.write(share, to: "\(path)/plain-\(communicator.rank)") })
            alone.load.append(try timed { try newest.load(into: buffers, table, communicator) })
            if let savedBy {
                let other = try asWritten(by: savedBy, newest, "\(path)/other", communicator)
                alone.other.append(try timed { try other.load(into: buffers, table, communicator) })
            }
        }
        try communicator.barrier()
        let copy = try communicator.allReduceMax(copyInMemory(writer.snapshotBytes))
        return Result(
            ranks: communicator.size, sharding: step.sharding, bytes: bytes,
            snapshotBytes: try communicator.allReduceMax(writer.snapshotBytes), stepSeconds: stepSeconds,
            stallSeconds: stall, copySeconds: copy, saveSeconds: save, costSeconds: max(0, cost),
            idleSaveSeconds: median(alone.save), plainSeconds: median(alone.plain),
            loadSeconds: median(alone.load), otherLoad: savedBy.map { ($0, median(alone.other)) },
            peakRSSMiB: peak)
    }

    /// Rewrites a checkpoint with the layout of another number of ranks, in a folder that is created anew.
    /// Collective.
    private func asWritten(
        by ranks: Int, _ checkpoint: Checkpoint, _ folder: String, _ communicator: Communicator
    ) throws -> Checkpoint {
        let path = try communicator.fromRoot("writing a checkpoint as \(ranks) ranks would") {
            try? FileManager.default.removeItem(atPath: folder)
            return try CheckpointReshard(of: checkpoint.path, ranks: ranks, output: folder).run()
        }
        return try Checkpoint(opening: path)
    }

    private func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }

    /// Seconds to copy this number of bytes within memory.
    private func copyInMemory(_ bytes: Int) -> Double {
        var places: [UnsafeMutableRawPointer] = []
        defer { for place in places { place.deallocate() } }
        for value: UInt8 in [1, 2] {
            let place = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes), alignment: 64)
            place.initializeMemory(as: UInt8.self, repeating: value, count: bytes)
            places.append(place)
        }
        let start = ContinuousClock.now
        places[1].copyMemory(from: places[0], byteCount: bytes)
        return (ContinuousClock.now - start).seconds
    }
}
