import Foundation
import Support

/// Describes the run and its environment: the first line of `metrics.jsonl`, repeated whenever the run
/// resumes.
package struct RunDescription: Sendable, Equatable {
    package var name: String
    package var seed: UInt64
    package var programVersion: String
    /// Host names without duplicates.
    package var hosts: [String]
    package var ranks: Int
    /// Threads per rank.
    package var threads: Int
    /// "fp32" or "bf16".
    package var precision: String
    /// The CPU's features (instruction sets).
    package var processor: String
    /// The compute libraries.
    package var kernels: String
    package var configurationHash: String
    /// Floating-point operations per image and step, forward and backward, counted for direct convolution.
    package var flopsPerImage: Double
    /// The folder of the initial weights; nil if they were random or came from a checkpoint.
    package var initializedFrom: String?

    package init(
        name: String, seed: UInt64, programVersion: String, hosts: [String], ranks: Int, threads: Int,
        precision: String, processor: String, kernels: String, configurationHash: String,
        flopsPerImage: Double, initializedFrom: String? = nil
    ) {
        (self.name, self.seed, self.programVersion) = (name, seed, programVersion)
        (self.hosts, self.ranks, self.threads, self.precision) = (hosts, ranks, threads, precision)
        (self.processor, self.kernels) = (processor, kernels)
        (self.configurationHash, self.flopsPerImage) = (configurationHash, flopsPerImage)
        self.initializedFrom = initializedFrom
    }

    var fields: JSONObject {
        var fields: JSONObject = [
            "name": .string(name), "seed": .string(String(seed)), "program_version": .string(programVersion),
            "hosts": .array(hosts.map { .string($0) }), "ranks": .integer(ranks),
            "threads": .integer(threads),
            "precision": .string(precision), "processor": .string(processor), "kernels": .string(kernels),
            "config_hash": .string(configurationHash), "flop_per_image": .finite(flopsPerImage.rounded()),
        ]
        if let initializedFrom { fields["init_from"] = .string(initializedFrom) }
        return fields
    }
}

/// One row of metrics: a logged step, from the training loop to `metrics.jsonl` and back into reports.
package struct StepMetrics: Sendable, Equatable {
    /// Optimizer updates made.
    package var step: Int
    /// Mean over the steps since the last logged one.
    package var loss: Double
    package var learningRate: Double
    /// Norm before clipping.
    package var gradientNorm: Double
    package var imagesPerSecond: Double
    /// Seconds per step on the slowest rank, for the four fields that follow.
    package var dataSeconds: Double
    package var computeSeconds: Double
    package var communicationSeconds: Double
    package var totalSeconds: Double
    package var epoch: Double
    package var samplesSeen: Int
    /// The terms of the loss by name, if it has several.
    package var parts: [(name: String, value: Double)]
    /// Gradient norm of each block of the model, before clipping, at this step only; not part of
    /// `metrics.jsonl`.
    package var blockNorms: [(name: String, value: Double)]
    /// When it was logged, in seconds since 1970; NaN if it has not been read from `metrics.jsonl`.
    package var time = Double.nan

    package init(
        step: Int, loss: Double, learningRate: Double, gradientNorm: Double, imagesPerSecond: Double,
        dataSeconds: Double, computeSeconds: Double, communicationSeconds: Double, totalSeconds: Double,
        epoch: Double, samplesSeen: Int, parts: [(name: String, value: Double)] = [],
        blockNorms: [(name: String, value: Double)] = []
    ) {
        (self.step, self.loss, self.learningRate) = (step, loss, learningRate)
        (self.gradientNorm, self.imagesPerSecond) = (gradientNorm, imagesPerSecond)
        (self.dataSeconds, self.computeSeconds) = (dataSeconds, computeSeconds)
        (self.communicationSeconds, self.totalSeconds) = (communicationSeconds, totalSeconds)
        (self.epoch, self.samplesSeen) = (epoch, samplesSeen)
        (self.parts, self.blockNorms) = (parts, blockNorms)
    }

    /// Reads a line of `metrics.jsonl`, which another version may have written; values that it lacks are NaN.
    ///
    /// - Returns: nil unless it is the line of a step.
    package init?(_ record: JSONObject) {
        guard record["kind"]?.stringValue == "step", let step = record["step"]?.intValue, step >= 0 else {
            return nil
        }
        let seconds = record["seconds"]?.objectValue
        func number(_ value: JSONValue?) -> Double { value?.doubleValue ?? .nan }
        func duration(_ key: String) -> Double {
            let value = number(seconds?[key])
            return value >= 0 ? value : .nan
        }
        self.init(
            step: step, loss: number(record["loss"]), learningRate: number(record["lr"]),
            gradientNorm: number(record["grad_norm"]), imagesPerSecond: number(record["images_per_second"]),
            dataSeconds: duration("data"), computeSeconds: duration("compute"),
            communicationSeconds: duration("communication"), totalSeconds: number(seconds?["total"]),
            epoch: number(record["epoch"]), samplesSeen: record["samples_seen"]?.intValue ?? 0)
        time = number(record["time"])
    }

    /// `totalSeconds` by kind of work.
    package var secondsByKind: [(kind: String, value: Double)] {
        [("data", dataSeconds), ("compute", computeSeconds), ("communication", communicationSeconds)]
    }

    package static func == (first: StepMetrics, second: StepMetrics) -> Bool {
        first.fields == second.fields && first.blockNorms.elementsEqual(second.blockNorms, by: ==)
    }

    var fields: JSONObject {
        var fields: JSONObject = [
            "loss": .finite(loss), "lr": .finite(learningRate), "grad_norm": .finite(gradientNorm),
            "images_per_second": .finite(imagesPerSecond),
            "seconds": [
                "data": .finite(dataSeconds), "compute": .finite(computeSeconds),
                "communication": .finite(communicationSeconds), "total": .finite(totalSeconds),
            ],
            "epoch": .finite(epoch), "samples_seen": .integer(samplesSeen),
        ]
        if !parts.isEmpty {
            var terms = JSONObject()
            for part in parts { terms[part.name] = .finite(part.value) }
            fields["loss_parts"] = .object(terms)
        }
        return fields
    }

    /// The values under the names used in TensorBoard and Weights & Biases. The part before the slash groups
    /// the charts.
    package var scalars: [(name: String, value: Double)] {
        [
            ("train/loss", loss), ("train/lr", learningRate), ("train/grad_norm", gradientNorm),
            ("train/epoch", epoch), ("train/samples_seen", Double(samplesSeen)),
            ("train/images_per_second", imagesPerSecond),
            ("seconds/data", dataSeconds), ("seconds/compute", computeSeconds),
            ("seconds/communication", communicationSeconds), ("seconds/total", totalSeconds),
        ]
            + parts.map { ("loss_parts/\($0.name)", $0.value) }
            + blockNorms.map { ("grad_norm_by_block/\($0.name)", $0.value) }
    }
}

extension JSONValue {
    /// A number, or null for NaN and infinities, which JSON cannot represent.
    package static func finite(_ value: Double) -> JSONValue { value.isFinite ? .number(value) : .null }
}

/// The environment variables that a run's records may contain.
///
/// Records are uploaded and shared, and an environment may contain secrets (`SLURM_JWT`, tokens, passwords).
/// A variable is therefore recorded only if it is in this list, which covers the job's id and its size. Names
/// of users, accounts, hosts, addresses and folders are left out.
enum RecordedEnvironment {
    private static let slurm = [
        "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS", "SLURM_JOB_NUM_NODES",
        "SLURM_NNODES", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE",
        "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "SLURM_MEM_PER_NODE",
        "SLURM_MEM_PER_CPU", "SLURM_THREADS_PER_CORE", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME",
    ]
    /// Longer values are dropped: they are not plain names or numbers.
    private static let longestValue = 256

    /// The Slurm job's variables, sorted, without the prefix `SLURM_` and in lower case, as wandb stores
    /// them.
    static func slurmJob(
        _ environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> [(key: String, value: String)] {
        slurm.sorted().compactMap { name in
            environment[name].flatMap { value in
                value.utf8.count > longestValue
                    ? nil : (name.dropFirst("SLURM_".count).lowercased(), value)
            }
        }
    }
}
