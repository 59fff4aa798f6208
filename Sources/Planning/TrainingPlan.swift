import Configuration
import DistTrain
import Foundation
import LDMModel
import Support

extension StepWorkload {
    /// Of a run. Makes the model's table of parameters, without their memory.
    package init(_ configuration: Configuration) throws {
        let train = configuration.train
        self.init(
            try UNet2DModel(configuration.model).store, averages: configuration.ema.decays.count,
            sharding: train.sharding, dtype: train.dtype, reduceDType: train.reduceDType)
    }
}

extension Configuration {
    /// What a run of this keeps and updates.
    package var plannedState: ModelState.Settings { session.state }
}

/// Why something cannot be planned.
package struct PlanError: ReportableError {
    package let message: String
    package let exitStatus = ExitStatus.usage

    package init(_ message: String) { self.message = message }
}

/// What a training comes to on one number of hosts.
package struct PlanRow: Codable, Equatable, Sendable {
    package var hosts: Int
    package var ranks: Int
    /// Images of a step, of all ranks and of the rank with the most.
    package var batchSize: Int
    package var imagesPerRank: Int
    package var stepSeconds: Double
    package var imagesPerSecond: Double
    /// Against one rank of the same kind, and that by the number of ranks.
    package var speedUp: Double
    package var efficiency: Double
    package var communicationShare: Double
    package var parts: StepPrediction
    /// To `train.steps`, the stalls of saves included.
    package var hours: Double
    /// Of each rank.
    package var memory: MemoryModel
    package var memoryBytes: Int
    /// By which a save stops training.
    package var stallSeconds: Double
}

/// `disttrain plan`: time, memory and files of a training, before it is run.
package struct TrainingPlan: Codable, Equatable, Sendable {
    /// What is trained.
    package struct Job: Codable, Equatable, Sendable {
        package var name: String
        package var parameters: Int
        package var precision: String
        package var gradients: String
        package var sharding: String
        package var steps: Int
        package var checkpointEvery: Int
    }

    package var job: Job
    package var network: NetworkModel
    package var compute: ComputeModel
    package var rows: [PlanRow]
    /// Bytes of a checkpoint, of the disk in a second, and the seconds that they make.
    package var checkpointBytes: Int
    package var diskBytesPerSecond: Double
    package var saveSeconds: Double

    /// How the global batch follows from the number of ranks.
    package enum Scaling: Equatable, Sendable {
        /// The same for any number: `train.batch_size`.
        case strong
        /// So many images for each rank.
        case weak(perRank: Int)

        package func batchSize(_ train: TrainConfiguration, ranks: Int) -> Int {
            if case .weak(let images) = self { return images * ranks }
            return train.batchSize
        }
    }

    /// - Throws: `PlanError` where a rank would have no image.
    package init(
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
    package static func imagesPerRank(_ train: TrainConfiguration, _ layout: RankLayout, _ scaling: Scaling)
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
    package static func batchesToTime(
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
    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return (try? String(decoding: encoder.encode(self), as: UTF8.self)) ?? "null"
    }

    /// Reads what `json` wrote.
    package init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(TrainingPlan.self, from: json)
    }
}
