import Foundation
import LDMModel
import TensorCore

extension StepWorkload {
    /// Of a run. Makes the model's table of parameters, without their memory.
    public init(_ configuration: Configuration) throws {
        let train = configuration.train
        self.init(
            try UNet2DModel(configuration.model).store, averages: configuration.ema.decays.count,
            sharding: train.sharding, dtype: train.dtype, reduceDType: train.reduceDType)
    }
}

extension Configuration {
    /// What a run of this keeps and updates.
    public var plannedState: ModelState.Settings { session.state }
}

/// Why something cannot be planned.
public struct PlanError: ReportableError {
    public let message: String
    public let exitStatus = ExitStatus.usage

    public init(_ message: String) { self.message = message }
}

/// What a training comes to on one number of hosts.
public struct PlanRow: Codable, Equatable, Sendable {
    public var hosts: Int
    public var ranks: Int
    /// Images of a step, of all ranks and of the rank with the most.
    public var batchSize: Int
    public var imagesPerRank: Int
    public var stepSeconds: Double
    public var imagesPerSecond: Double
    /// Against one rank of the same kind, and that by the number of ranks.
    public var speedUp: Double
    public var efficiency: Double
    public var communicationShare: Double
    public var parts: StepPrediction
    /// To `train.steps`, the stalls of saves included.
    public var hours: Double
    /// Of each rank.
    public var memory: MemoryModel
    public var memoryBytes: Int
    /// By which a save stops training.
    public var stallSeconds: Double
}

/// `disttrain plan`: time, memory and files of a training, before it is run.
public struct TrainingPlan: Codable, Equatable, Sendable {
    /// What is trained.
    public struct Job: Codable, Equatable, Sendable {
        public var name: String
        public var parameters: Int
        public var precision: String
        public var gradients: String
        public var sharding: String
        public var steps: Int
        public var checkpointEvery: Int
    }

    public var job: Job
    public var network: NetworkModel
    public var compute: ComputeModel
    public var rows: [PlanRow]
    /// Bytes of a checkpoint, of the disk in a second, and the seconds that they make.
    public var checkpointBytes: Int
    public var diskBytesPerSecond: Double
    public var saveSeconds: Double

    /// How the global batch follows from the number of ranks.
    public enum Scaling: Equatable, Sendable {
        /// The same for any number: `train.batch_size`.
        case strong
        /// So many images for each rank.
        case weak(perRank: Int)

        public func batchSize(_ train: TrainConfiguration, ranks: Int) -> Int {
            if case .weak(let images) = self { return images * ranks }
            return train.batchSize
        }
    }

    /// - Throws: `PlanError` where a rank would have no image.
    public init(
        _ configuration: Configuration, workload: StepWorkload, compute: ComputeModel, network: NetworkModel,
        layouts: [RankLayout], scaling: Scaling, diskBytesPerSecond: Double
    ) throws(PlanError) {
        let train = configuration.train
        job = Job(
            name: configuration.name, parameters: workload.parameters, precision: workload.dtype.precision,
            gradients: workload.reduceDType.rawValue, sharding: workload.sharding.rawValue,
            steps: train.steps,
            checkpointEvery: train.checkpointEvery)
        self.network = network
        self.compute = compute
        self.diskBytesPerSecond = diskBytesPerSecond
        checkpointBytes = MemoryModel.checkpointBytes(workload)
        saveSeconds = Double(checkpointBytes) / diskBytesPerSecond

        let model = StepModel(workload: workload, compute: compute, network: network)
        let one = scaling.batchSize(train, ranks: 1)
        let alone = model.predict(RankLayout(hosts: 1), images: one, microBatch: train.microBatchSize)
        let aloneSpeed = Double(one) / alone.stepSeconds
        var rows: [PlanRow] = []
        for layout in layouts {
            let images = try Self.imagesPerRank(train, layout, scaling)
            let batch = scaling.batchSize(train, ranks: layout.ranks)
            let parts = model.predict(layout, images: images, microBatch: train.microBatchSize)
            let speed = Double(batch) / parts.stepSeconds
            let memory = MemoryModel(
                workload, layout,
                activationBytes: compute.share(images, microBatch: train.microBatchSize).activationBytes,
                otherBytes: compute.otherBytes)
            let stall = Double(memory.snapshotBytes) / compute.copyBytesPerSecond
            let saves = train.checkpointEvery > 0 ? train.steps / train.checkpointEvery : 1
            rows.append(
                PlanRow(
                    hosts: layout.hosts, ranks: layout.ranks, batchSize: batch, imagesPerRank: images,
                    stepSeconds: parts.stepSeconds, imagesPerSecond: speed, speedUp: speed / aloneSpeed,
                    efficiency: speed / aloneSpeed / Double(layout.ranks),
                    communicationShare: parts.communicationShare, parts: parts,
                    hours: (Double(train.steps) * parts.stepSeconds + Double(saves) * stall) / 3600,
                    memory: memory, memoryBytes: memory.totalBytes, stallSeconds: stall))
        }
        self.rows = rows
    }

    /// Images of the rank with the most.
    public static func imagesPerRank(_ train: TrainConfiguration, _ layout: RankLayout, _ scaling: Scaling)
        throws(PlanError) -> Int
    {
        let batch = scaling.batchSize(train, ranks: layout.ranks)
        guard batch >= layout.ranks else {
            throw PlanError(
                "train.batch_size is \(batch), fewer than the \(layout.ranks) ranks of \(layout.hosts) hosts: "
                    + "raise it with --set train.batch_size=\(layout.ranks), or give --batch-per-rank")
        }
        return (batch + layout.ranks - 1) / layout.ranks
    }

    /// The sizes of batch that are worth timing: all that the layouts ask for lie near the line through them.
    public static func batchesToTime(
        _ train: TrainConfiguration, _ layouts: [RankLayout], _ scaling: Scaling, atMost limit: Int = 16
    ) throws(PlanError) -> [Int] {
        var needed: Set<Int> = []
        for layout in layouts {
            let images = try imagesPerRank(train, layout, scaling)
            needed.insert(min(images, train.microBatchSize ?? images))
        }
        // One rank is what the others are compared with.
        let alone = scaling.batchSize(train, ranks: 1)
        needed.insert(min(alone, train.microBatchSize ?? alone))
        let (least, most) = (needed.min()!, min(needed.max()!, limit))
        if needed.count == 1, most == least { return [least] }
        return Set([min(least, limit / 2), most]).sorted()
    }

    /// One line for programs, keys in order of the alphabet.
    public var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return (try? String(decoding: encoder.encode(self), as: UTF8.self)) ?? "null"
    }

    /// Reads what `json` wrote.
    public init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(TrainingPlan.self, from: json)
    }
}
