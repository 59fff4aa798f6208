import ArgumentParser
import Communication
import Configuration
import Foundation
import Planning
import Support
import TensorCore

/// The source of the compute and disk parameters: measured here, measured earlier, or given.
struct PlanMachineOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Step time of one rank, instead of measuring it on this machine.", valueName: "s"))
    var stepSeconds: Double?
    @Option(
        help: ArgumentHelp(
            "Images in that step. Default: the images per rank of the first row.", valueName: "count"))
    var stepImages: Int?
    @Option(
        help: ArgumentHelp(
            "Output of an earlier `plan --json` for this model, whose compute measurements are reused.",
            valueName: "file"),
        completion: .file())
    var measured: String?
    @Option(
        help: ArgumentHelp("Throughput of the disk in bytes/s: 500M. Default: measured.", valueName: "rate"))
    var disk: String?
    @Option(
        help: ArgumentHelp(
            "Folder on the disk to measure, by writing 256 MiB three times.", valueName: "folder"),
        completion: .directory)
    var folder = "."

    func validate() throws {
        if let stepSeconds, !(stepSeconds > 0 && stepSeconds.isFinite) {
            throw ValidationError("--step-seconds \(stepSeconds): expected more than 0")
        }
        if let stepImages, stepImages < 1 {
            throw ValidationError("--step-images \(stepImages): expected 1 or more")
        }
        if stepSeconds != nil, measured != nil {
            throw ValidationError("--step-seconds and --measured: expected one of them")
        }
        if let disk, Quantity.bytesPerSecond(disk) == nil {
            throw ValidationError("--disk \(disk): expected bytes/s, such as 500M")
        }
    }

    func diskSpeed(_ communicator: Communicator) throws -> (bytesPerSecond: Double, source: String) {
        if let given = disk.flatMap(Quantity.bytesPerSecond) { return (given, "given") }
        let measured = try communicator.fromRoot("measuring the disk") {
            try DiskSpeed.measure(folder: folder)
        }
        return (measured, "measured in \(folder)")
    }

    func compute(
        _ configuration: Configuration, _ workload: StepWorkload, _ layouts: [RankLayout],
        _ scaling: TrainingPlan.Scaling, _ communicator: Communicator
    ) throws -> (ComputeModel, source: String) {
        if let measured {
            return (try read(measured, workload), "measured earlier, in \(measured)")
        }
        if let stepSeconds {
            let images =
                try stepImages
                ?? TrainingPlan.imagesPerRank(configuration.train, layouts[0], scaling)
            let compute = try ComputeModel.derived(
                stepSeconds: stepSeconds, batch: images, unet: configuration.model, workload: workload,
                copyBytesPerSecond: try ComputeMeasurement.copySpeed(communicator))
            return (compute, "given: \(fixed(stepSeconds, 3)) s for \(images) images")
        }
        let batches = try TrainingPlan.batchesToTime(configuration.train, layouts, scaling)
        if communicator.isRoot {
            let sizes = batches.map(String.init).joined(separator: " and ")
            Console.error.write(
                "timing steps of \(sizes) images on \(communicator.size) × \(Processor.threads) threads …\n"
            )
        }
        let compute = try ComputeMeasurement(
            unet: configuration.model, state: configuration.stateSettings, batches: batches
        ).run(communicator)
        let times = compute.profiles.map { profile in
            "\(profile.batch) images in \(fixed(profile.passSeconds + profile.updateSeconds, 3)) s"
        }.joined(separator: ", ")
        return (compute, "measured on \(compute.ranks) × \(compute.threads) threads: \(times)")
    }

    private func read(_ path: String, _ workload: StepWorkload) throws -> ComputeModel {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw PlanError("--measured \(path): cannot be read: \(String(cString: strerror(errno)))")
        }
        let plan: TrainingPlan
        do {
            plan = try TrainingPlan(json: data)
        } catch {
            throw PlanError("--measured \(path): expected the output of `disttrain plan --json`")
        }
        guard plan.job.parameters == workload.parameters, plan.job.precision == workload.dtype.precision,
            plan.compute.profiles[0].readySeconds.count == workload.buckets.count
        else {
            throw PlanError(
                "--measured \(path): found a model with \(plan.job.parameters) parameters in \(plan.job.precision), "
                    + "expected \(workload.parameters) in \(workload.dtype.precision); measure again")
        }
        return plan.compute
    }
}
