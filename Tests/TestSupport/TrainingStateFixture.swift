import Checkpointing
import Communication
import Foundation
import LDMModel
import TensorCore

/// A small training state with a distinct value at each position, and a destination for loading it.
package final class CheckpointState {
    package static let shapes: [(String, [Int])] = [
        ("conv_in.weight", [8, 3, 3, 3]), ("conv_in.bias", [8]), ("mid.weight", [32, 8]), ("mid.bias", [32]),
        ("conv_out.weight", [3, 32, 1, 1]),
    ]
    package let table: TensorTable
    package let buffers: [StateBuffer]
    package let count: Int

    package init(folders: [String] = ["unet", "ema-0.9999", "exp_avg", "exp_avg_sq"], seed: UInt64? = nil) {
        var entries: [TensorTable.Entry] = []
        var offset = 0
        for (name, shape) in Self.shapes {
            entries.append(TensorTable.Entry(name: name, shape: shape, offset: offset))
            offset += (shape.reduce(1, *) + 15) & ~15
        }
        table = TensorTable(entries: entries)
        let count = offset
        self.count = count
        buffers = folders.enumerated().map { index, folder in
            let values = UnsafeMutablePointer<Float>.allocate(capacity: count)
            values.initialize(repeating: 0, count: count)
            if let seed {
                // Any finite float, including subnormals, negative zero and huge values.
                var random = CounterRandom(seed: seed, purpose: .initialization, sample: UInt64(index))
                for i in 0..<count { values[i] = random.uniform(-1, 1) }
                (values[0], values[1], values[2]) = (-0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude)
            }
            return StateBuffer(folder, values, 0..<count)
        }
    }

    deinit { for buffer in buffers { buffer.values.deallocate() } }

    package func state(step: Int) -> TrainingState {
        TrainingState(step: step, samplesSeen: step * 64, buffers: buffers)
    }

    /// The bits of each named value.
    package func bits() -> [[UInt32]] {
        buffers.map { buffer in
            table.entries.flatMap { entry in
                (entry.offset..<entry.offset + entry.count).map { buffer.values[$0].bitPattern }
            }
        }
    }
}

package let checkpointRun = RunIdentity(
    name: "tiny", seed: .max, configuration: "name: tiny\nseed: 0\n",
    modelConfig: "{\"_class_name\": \"UNet2DModel\"}\n", schedulerConfig: nil, datasetFingerprint: "0123",
    firstStage: FirstStageReference(path: "models/vae", weightsHash: "ab", scalingFactor: 0.18215),
    programVersion: "0.1.0")

package func checkpointWriter(
    _ folder: CheckpointFolder, _ table: TensorTable, keepLast: Int = 3, keepEvery: Int = 0
) throws -> CheckpointWriter {
    try CheckpointWriter(
        folder: folder, table: table, run: checkpointRun,
        retention: Retention(keepLast: keepLast, keepEvery: keepEvery), communicator: Communicator())
}

/// Saves a checkpoint as `ranks` ranks would, one after another.
package func saveCheckpoint(_ state: CheckpointState, step: Int, in folder: CheckpointFolder, ranks: Int)
    throws
    -> String
{
    try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
    let draft = CheckpointDraft(folder: folder, step: step, id: "test")
    try draft.create(state.buffers.map(\.folder))
    let shards = try (0..<ranks).map {
        try draft.writeShards(state.buffers, state.table, rank: $0, of: ranks)
    }
    return try commit(draft, state, shards)
}

package func commit(_ draft: CheckpointDraft, _ state: CheckpointState, _ shards: [[CheckpointFile]]) throws
    -> String
{
    try draft.commit(
        shards: shards, state.table, folders: state.buffers.map(\.folder),
        modelConfig: checkpointRun.modelConfig
    ) { files in
        CheckpointManifest(
            run: checkpointRun, step: draft.step, samplesSeen: draft.step * 64, worldSize: shards.count,
            attemptID: "test", savedAt: 1, folders: state.buffers.map(\.folder), parameters: state.table,
            files: files)
    }
}

/// Flips one bit of a file, at an offset from its start or, if negative, from its end.
package func flipBit(_ path: String, at offset: Int) throws {
    var data = try Data(contentsOf: URL(fileURLWithPath: path))
    data[offset < 0 ? data.count + offset : offset] ^= 0x10
    try data.write(to: URL(fileURLWithPath: path))
}

package func cutShort(_ path: String, by count: Int) throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    try data.dropLast(count).write(to: URL(fileURLWithPath: path))
}
