import Configuration
import DistTrain
import Foundation
import LDMModel
import Support

extension StepWorkload {
    /// The workload of a run. Creates the model's parameter table, but does not allocate the parameters.
    package init(_ configuration: Configuration) throws {
        let train = configuration.train
        self.init(
            try UNet2DModel.forTraining(configuration.model).store, averages: configuration.ema.decays.count,
            sharding: train.sharding, dtype: train.dtype, reduceDType: train.reduceDType)
    }
}

/// Why something cannot be planned.
package struct PlanError: ReportableError {
    package let message: String
    package let exitStatus = ExitStatus.usage

    package init(_ message: String) { self.message = message }
}

/// The prediction for one number of hosts.
package struct PlanRow: Codable, Equatable, Sendable {
    package var hosts: Int
    package var ranks: Int
    /// Images per step on all ranks, and the largest number on any rank.
    package var batchSize: Int
    package var imagesPerRank: Int
    package var stepSeconds: Double
    package var imagesPerSecond: Double
    /// Speedup over one rank of the same kind, and speedup divided by the number of ranks.
    package var speedUp: Double
    package var efficiency: Double
    package var communicationShare: Double
    package var parts: StepPrediction
    /// Hours until `train.steps`, including the stalls of saves.
    package var hours: Double
    /// Memory per rank.
    package var memory: MemoryModel
    package var memoryBytes: Int
    /// Seconds that a save stops training.
    package var stallSeconds: Double
}

/// `disttrain plan`: predicts time, memory and files of a training run.
package struct TrainingPlan: JSONLine, Equatable {
    /// The training run.
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
    /// Size of a checkpoint, throughput of the disk in bytes/s, and the resulting seconds.
    package var checkpointBytes: Int
    package var diskBytesPerSecond: Double
    package var saveSeconds: Double

    /// How the global batch size depends on the number of ranks.
    package enum Scaling: Equatable, Sendable {
        /// Constant: `train.batch_size`.
        case strong
        /// This number of images per rank.
        case weak(perRank: Int)

        package func batchSize(_ train: TrainConfiguration, ranks: Int) -> Int {
            if case .weak(let images) = self { return images * ranks }
            return train.batchSize
        }
    }

    /// - Throws: `PlanError` if a rank would have no image.
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
        (self.network, self.compute) = (network, compute)
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

    /// The largest number of images on any rank.
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

    /// The batch sizes to time: all batch sizes of the layouts are close to the line through them.
    package static func batchesToTime(
        _ train: TrainConfiguration, _ layouts: [RankLayout], _ scaling: Scaling, atMost limit: Int = 16
    ) throws(PlanError) -> [Int] {
        var needed: Set<Int> = []
        for layout in layouts {
            let images = try imagesPerRank(train, layout, scaling)
            needed.insert(min(images, train.microBatchSize ?? images))
        }
        // A single rank is the baseline of the speedup.
        let alone = scaling.batchSize(train, ranks: 1)
        needed.insert(min(alone, train.microBatchSize ?? alone))
        let (least, most) = (needed.min()!, min(needed.max()!, limit))
        if needed.count == 1, most == least { return [least] }
        return Set([min(least, limit / 2), most]).sorted()
    }
}
