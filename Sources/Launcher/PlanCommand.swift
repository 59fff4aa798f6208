import ArgumentParser
import Configuration
import DistTrain
import Foundation
import Planning
import TensorCore

/// `disttrain plan`: predicts the cost of a training run on hosts that may not be available yet.
struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Predict time, memory and checkpoint size of a training run on any number of hosts.",
        discussion: """
            Times the computation of a rank on this machine for some seconds, and predicts the time for network and disk:

              disttrain plan --config configs/celeba_hq_256.yaml --hosts 1,8,64 --bandwidth 10G --latency 50us
              disttrain plan --config FILE --hosts 8 --network network.json     # from `bench allreduce --json`
              disttrain launch -n 4 -- plan --config FILE --hosts 1,8 …         # hosts with 4 ranks each

            Run it on a machine of the same kind as the training hosts: computation is measured, the rest is predicted \
            by a model (docs/scaling.md reports its error). Without --batch-per-rank, the global batch size is \
            train.batch_size for any number of hosts.

            Measurements can be reused, for other networks or on another machine:

              disttrain plan --config FILE --hosts 1 --json > here.json
              disttrain plan --config FILE --hosts 8,64 --measured here.json --bandwidth 1G --reduce-dtype bf16
            """)

    @OptionGroup var source: ConfigurationOptions
    @Option(help: ArgumentHelp("Numbers of hosts, one row each: 1,8,64.", valueName: "m,…"))
    var hosts: String
    @Option(help: "Ranks per host. Default: the number of ranks that this command runs on.")
    var ranksPerHost: Int?
    @Option(help: "Threads per rank while its computation is timed.")
    var threads: Int?
    @Option(help: "Type of gradients in transfer: fp32 or bf16. Default: train.reduce_dtype.")
    var reduceDtype: ReduceDType?
    @Option(help: "Weak scaling: this many images per rank, instead of train.batch_size in total.")
    var batchPerRank: Int?

    @OptionGroup(title: "Network") var network: PlanNetworkOptions
    @OptionGroup(title: "Compute and disk") var machine: PlanMachineOptions

    @Flag(help: "Print one line of JSON, which --measured reads.")
    var json = false

    func validate() throws {
        _ = try hostCounts()
        for (name, count) in [
            ("--ranks-per-host", ranksPerHost), ("--threads", threads), ("--batch-per-rank", batchPerRank),
        ] where count ?? 1 < 1 { throw ValidationError("\(name) \(count!): expected 1 or more") }
    }

    func run() throws {
        try onAllRanks { communicator in
            if let threads { Processor.setThreads(threads) }
            var configuration = try source.load(Configuration.self)
            if let reduceDtype { configuration.train.reduceDType = reduceDtype }
            let layouts = try hostCounts().map {
                RankLayout(hosts: $0, perHost: ranksPerHost ?? communicator.size)
            }
            let scaling = batchPerRank.map { TrainingPlan.Scaling.weak(perRank: $0) } ?? .strong
            for layout in layouts {
                _ = try TrainingPlan.imagesPerRank(configuration.train, layout, scaling)
            }
            let network = try network.model(hosts: layouts.map(\.hosts).max() ?? 1)
            let workload = try StepWorkload(configuration)
            let disk = try machine.diskSpeed(communicator)
            let (compute, source) = try machine.compute(
                configuration, workload, layouts, scaling, communicator)
            let plan = try TrainingPlan(
                configuration, workload: workload, compute: compute, network: network.model, layouts: layouts,
                scaling: scaling, diskBytesPerSecond: disk.bytesPerSecond)
            guard communicator.isRoot else { return }
            print(
                json
                    ? plan.json
                    : PlanTable(
                        plan: plan, network: network.source, computing: source, disk: disk.source,
                        isWeak: batchPerRank != nil
                    ).text)
        }
    }

    private func hostCounts() throws -> [Int] {
        let counts = hosts.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard counts.allSatisfy({ (1...65_536).contains($0) }) else {
            throw ValidationError("--hosts \(hosts): expected numbers of 1 or more, such as 8 or 1,8,64")
        }
        return counts
    }
}

/// The source of the network parameters.
struct PlanNetworkOptions: ParsableArguments {
    @Option(
        name: .customLong("network"),
        help: ArgumentHelp("Output of `bench allreduce --json` on such hosts.", valueName: "file"),
        completion: .file())
    var file: String?
    @Option(help: ArgumentHelp("Bandwidth of a host's link in bits/s: 1G, 100M.", valueName: "rate"))
    var bandwidth: String?
    @Option(
        help: ArgumentHelp("One-way latency of a message: 50us, 0.2ms. Default: 50us.", valueName: "time"))
    var latency: String?
    @Option(
        help: ArgumentHelp(
            "Processor time of a rank per byte that it exchanges. Default: 1, as measured for TCP on the test bed.",
            valueName: "ns"))
    var driving: Double?

    func validate() throws {
        if let bandwidth, Quantity.bitsPerSecond(bandwidth) == nil {
            throw ValidationError("--bandwidth \(bandwidth): expected bits/s, such as 10G or 100M")
        }
        if let latency, Quantity.seconds(latency) == nil {
            throw ValidationError("--latency \(latency): expected a time, such as 50us or 0.2ms")
        }
        if let driving, !(driving >= 0 && driving.isFinite) {
            throw ValidationError("--driving \(driving): expected 0 or more nanoseconds")
        }
    }

    /// - Throws: `ValidationError` if there are several hosts and no network parameters.
    func model(hosts: Int) throws -> (model: NetworkModel, source: String) {
        guard file != nil || bandwidth != nil || hosts == 1 else {
            throw ValidationError(
                "--hosts \(hosts): requires network parameters; give --bandwidth (and --latency), or --network with the "
                    + "output of `bench allreduce --json` on such hosts")
        }
        var model = NetworkModel(
            latencySeconds: 50e-6, secondsPerByte: 8e-9, drivingSecondsPerByte: 1e-9)
        var source = "given"
        if let file {
            guard let data = FileManager.default.contents(atPath: file) else {
                throw PlanError("--network \(file): cannot be read: \(String(cString: strerror(errno)))")
            }
            guard let report = try? NetworkReport(json: data) else {
                throw PlanError(
                    "--network \(file): expected the output of `disttrain bench allreduce --json`")
            }
            guard report.hosts > 1 else {
                throw PlanError(
                    "--network \(file): was measured on one host, whose ranks share memory; run `bench allreduce` on "
                        + "several hosts, or give --bandwidth and --latency")
            }
            model = report.network
            source = "measured on \(report.hosts) hosts"
        }
        if let rate = bandwidth.flatMap(Quantity.bitsPerSecond) { model.secondsPerByte = 8 / rate }
        if let time = latency.flatMap(Quantity.seconds) { model.latencySeconds = time }
        if let driving { model.drivingSecondsPerByte = driving * 1e-9 }
        return (model, source)
    }
}
