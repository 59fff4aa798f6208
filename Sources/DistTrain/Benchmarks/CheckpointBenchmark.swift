import Foundation
import LDMModel
import TensorCore

/// Saves of a U-Net's training state while it trains on random data: how long a step stops, how much a save costs in
/// all, and how fast its bytes reach the disk beside a plain writer of as many.
public struct CheckpointBenchmark {
    public var step: StepBenchmark
    /// An existing folder on the disk that is measured; what is written there is removed again.
    public var folder: String

    public init(step: StepBenchmark, folder: String) {
        self.step = step
        self.folder = folder
    }

    /// What was measured, on all ranks together; the slowest rank's seconds.
    public struct Result: Sendable {
        public var ranks: Int
        public var sharding: Sharding
        /// Of the checkpoint, and of each rank's copy of its part.
        public var bytes: Int, snapshotBytes: Int
        /// The median step without a save.
        public var stepSeconds: Double
        /// How long training stops for a save.
        public var stallSeconds: Double
        /// Copying `snapshotBytes` alone.
        public var copySeconds: Double
        /// From the start of a save to its commit, while training goes on.
        public var saveSeconds: Double
        /// What the steps meanwhile took longer, the stall included.
        public var costSeconds: Double
        /// A save with nothing beside it.
        public var idleSaveSeconds: Double
        /// As many bytes from every rank into one file each, fsync included.
        public var plainSeconds: Double
        /// Verifying the checkpoint and reading each rank's part.
        public var loadSeconds: Double
        public var peakRSSMiB: Int

        /// Of training time, with a save every 100 steps.
        public var overheadOf100Steps: Double { costSeconds / (100 * stepSeconds) }
        /// Of what plain writing reaches.
        public var shareOfDisk: Double { plainSeconds / idleSaveSeconds }

        /// One line for programs.
        public var json: String {
            func rounded(_ value: Double) -> JSONValue { .number((value * 1e4).rounded() / 1e4) }
            let object: JSONObject = [
                "program": "disttrain", "ranks": .integer(ranks), "sharding": .string(sharding.rawValue),
                "bytes": .integer(bytes), "snapshot_bytes_per_rank": .integer(snapshotBytes),
                "seconds_per_step": rounded(stepSeconds), "stall_seconds": rounded(stallSeconds),
                "copy_seconds": rounded(copySeconds), "save_seconds_while_training": rounded(saveSeconds),
                "cost_seconds": rounded(costSeconds), "overhead_every_100_steps": rounded(overheadOf100Steps),
                "save_seconds": rounded(idleSaveSeconds), "plain_write_seconds": rounded(plainSeconds),
                "share_of_disk": rounded(shareOfDisk), "load_seconds": rounded(loadSeconds),
                "peak_rss_mib": .integer(peakRSSMiB),
            ]
            return (try? JSONValue.object(object).text()) ?? "null"
        }

        /// For people.
        public var table: String {
            func digits(_ value: Double, _ decimals: Int = 3) -> String {
                String(format: "%.\(decimals)f", value)
            }
            let speed = digits(Double(bytes) / idleSaveSeconds / 1e6, 0)
            return [
                "\(digits(Double(bytes) / 1e6, 0)) MB from \(ranks) ranks, sharding \(sharding.rawValue); a rank's copy "
                    + "takes \(digits(Double(snapshotBytes) / 1e6, 0)) MB; \(peakRSSMiB) MiB peak a rank",
                "a step takes \(digits(stepSeconds)) s; a save stops it for \(digits(stallSeconds)) s, of which "
                    + "\(digits(copySeconds)) s are the copy, and is committed \(digits(saveSeconds)) s later",
                "it costs training \(digits(costSeconds)) s: \(digits(100 * overheadOf100Steps, 2)) % with a save "
                    + "every 100 steps",
                "alone a save takes \(digits(idleSaveSeconds)) s, \(speed) MB/s, "
                    + "\(digits(100 * shareOfDisk, 0)) % of plain writing with fsync (\(digits(plainSeconds)) s)",
                "verifying and loading it takes \(digits(loadSeconds)) s",
            ].joined(separator: "\n")
        }
    }

    /// Collective.
    public func run(_ communicator: any Communicator) throws -> Result {
        let model = try UNet2DModel(step.unet)
        model.store.initialize(seed: 0)
        let training = try step.makeStep(model, communicator)
        let path = try communicator.fromRoot("making a folder in \(folder)") {
            let path = "\(folder)/disttrain-bench-\(UInt32.random(in: 0...UInt32.max))"
            guard mkdir(path, 0o755) == 0 else {
                throw CheckpointError(.inaccessible, path, "cannot be made: \(systemReason())")
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
        _ = try training(step: 0)
        try writer.save(state(1))
        var seconds: [Double] = []
        var number = 1
        for _ in 0..<step.steps {
            seconds.append(try timed { _ = try training(step: number) })
            number += 1
        }
        let stepSeconds = seconds.sorted()[seconds.count / 2]

        // While training goes on.
        let start = ContinuousClock.now
        let stall = try timed { try writer.begin(state(number)) }
        var cost = stall
        while writer.isSaving {
            cost +=
                try timed {
                    let result = try training(step: number, riding: [writer.working])
                    try writer.settle(result.riding[0])
                } - stepSeconds
            number += 1
        }
        try writer.expectSaved()
        let save = (ContinuousClock.now - start).seconds

        let peak = try communicator.allReduceMax(peakResidentMiB())
        // Alone, and beside a plain writer of as many bytes.
        let idle = try timed { try writer.save(state(number)) }
        let newest = try Checkpoint(opening: CheckpointFolder(path).path(step: number))
        let bytes = newest.manifest.files.reduce(0) { $0 + $1.bytes }
        let share = bytes / communicator.size
        let plain = try timed { try writePlainly(share, to: "\(path)/plain-\(communicator.rank)") }
        let load = try timed { try newest.load(into: buffers, table, communicator) }
        try communicator.barrier()
        let copy = try communicator.allReduceMax(copyInMemory(writer.snapshotBytes))
        return Result(
            ranks: communicator.size, sharding: step.sharding, bytes: bytes,
            snapshotBytes: try communicator.allReduceMax(writer.snapshotBytes), stepSeconds: stepSeconds,
            stallSeconds: stall, copySeconds: copy, saveSeconds: save, costSeconds: max(0, cost),
            idleSaveSeconds: idle, plainSeconds: plain, loadSeconds: load,
            peakRSSMiB: peak)
    }

    /// What `dd bs=4M conv=fsync` does.
    private func writePlainly(_ count: Int, to path: String) throws {
        let block = [UInt8](repeating: 0x5A, count: 1 << 22)
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            throw CheckpointError(.inaccessible, path, "cannot be made: \(systemReason())")
        }
        defer {
            close(file)
            unlink(path)
        }
        var rest = count
        while rest > 0 {
            let written = write(file, block, min(rest, block.count))
            guard written > 0 else {
                throw CheckpointError(.inaccessible, path, "cannot be written: \(systemReason())")
            }
            rest -= written
        }
        guard fsync(file) == 0 else {
            throw CheckpointError(.inaccessible, path, "cannot be flushed: \(systemReason())")
        }
    }

    /// Seconds of copying so many bytes from one place in memory to another.
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
