import Communication
import Configuration
import Foundation
import Planning
import TensorCore
import Testing

/// Compares the cost model of `disttrain plan` with values computed by hand, and checks its limits.
@Suite struct PlanningTests {
    private let network = NetworkModel(
        latencySeconds: 1e-3, secondsPerByte: 1e-8, drivingSecondsPerByte: 0)

    /// 4 buckets of 16,000 elements in a pass of 1.5 s: first read at 0, 0.1, 0.2 and 0.3 s, and complete at 1.1,
    /// 1.2, 1.3 and 1.4 s, in the opposite order.
    private func model(
        _ network: NetworkModel, _ reduceDType: ReduceDType = .fp32, sharding: Sharding = .optimizer,
        dtype: DType = .float32
    ) -> StepModel {
        StepModel(
            workload: StepWorkload(
                elements: 64_000, vectorElements: 1600, parameters: 63_900,
                buckets: [48_000..<64_000, 32_000..<48_000, 16_000..<32_000, 0..<16_000],
                forward: [0..<16_000, 16_000..<32_000, 32_000..<48_000, 48_000..<64_000],
                sharding: sharding, dtype: dtype, reduceDType: reduceDType),
            compute: compute, network: network)
    }

    private let compute = ComputeModel(
        profiles: [
            ComputeProfile(
                batch: 8, passSeconds: 1.5, readySeconds: [1.1, 1.2, 1.3, 1.4],
                needSeconds: [0, 0.1, 0.2, 0.3], updateSeconds: 0.4, activationBytes: 800)
        ], ranks: 1, threads: 1, copyBytesPerSecond: 1e18, otherBytes: 0)

    // MARK: Collectives

    @Test func ringsTakeWhatTheirRoundsTake() {
        let four = RankLayout(hosts: 4)
        // 3 rounds of a block of 1 MB, sent with the rendezvous protocol: 3·(3 ms + 10 ms).
        #expect(abs(network.ringAllGather(bytes: 4e6, four) - 0.039) < 1e-12)
        #expect(abs(network.ringAllReduce(bytes: 4e6, four) - 0.078) < 1e-12)
        // 3 rounds of 100 bytes, sent eagerly.
        #expect(abs(network.ringReduceScatter(bytes: 400, four) - 0.003003) < 1e-12)
        // 2 ranks per host: 7 rounds of blocks of 0.5 MB.
        #expect(abs(network.ringAllGather(bytes: 4e6, RankLayout(hosts: 4, perHost: 2)) - 0.056) < 1e-12)
    }

    @Test func treesTakeALevelForEachDoubling() {
        // 3 levels of 8 bytes on 5 to 8 hosts.
        for hosts in 5...8 {
            #expect(
                abs(network.treeAllReduce(bytes: 8, RankLayout(hosts: hosts)) - 3 * (1e-3 + 8e-8)) < 1e-12)
        }
        // Short messages use the tree, long ones the ring.
        let eight = RankLayout(hosts: 8)
        #expect(network.allReduce(bytes: 8, eight) == network.treeAllReduce(bytes: 8, eight))
        #expect(network.allReduce(bytes: 1e8, eight) == network.ringAllReduce(bytes: 1e8, eight))
    }

    /// The choice of Open MPI 4.1: pairwise exchange on 4 ranks, the ring on 3, 5 and 64.
    @Test func someNumbersOfRanksGatherInPairs() {
        for ranks in [3, 5, 64] {
            let layout = RankLayout(hosts: ranks)
            #expect(network.allGather(bytes: 1e8, layout) == network.ringAllGather(bytes: 1e8, layout))
        }
        // 2 rounds, and 5 blocks of 1 MB.
        #expect(abs(network.allGather(bytes: 4e6, RankLayout(hosts: 4)) - (2 * 3e-3 + 5 * 1e-2)) < 1e-12)
        #expect(network.allGather(bytes: 4e6, RankLayout(hosts: 1, perHost: 4)) == 0)
    }

    @Test(arguments: [ReductionRoute.halving, .direct, .ring])
    func whatIsSentIsReceived(_ route: ReductionRoute) {
        for layout in [
            RankLayout(hosts: 2), RankLayout(hosts: 3), RankLayout(hosts: 8, perHost: 4),
            RankLayout(hosts: 512),
        ] {
            for owner in [0, 1, layout.ranks - 1] {
                let load = route.load(owner: owner, layout)
                let (received, sent) = (load.incoming.reduce(0, +), load.outgoing.reduce(0, +))
                #expect(abs(received - sent) < 1e-9, "\(route) on \(layout)")
                // The gradients of all other hosts are sent.
                #expect(received >= Double(layout.hosts - 1))
            }
        }
        let alone = route.load(owner: 1, RankLayout(hosts: 1, perHost: 4))
        #expect(alone.incoming == [0] && alone.outgoing == [0])
    }

    @Test func waysToTheOwner() {
        typealias Load = ReductionRoute.Load
        #expect(
            ReductionRoute.direct.load(owner: 2, RankLayout(hosts: 4))
                == Load(incoming: [0, 0, 3, 0], outgoing: [1, 1, 0, 1]))
        // Halves and quarters, three quarters each; then 2 → 0 and 3 → 1 a quarter, 1 → 0 a half.
        #expect(
            ReductionRoute.halving.load(owner: 0, RankLayout(hosts: 4))
                == Load(incoming: [1.5, 1, 0.75, 0.75], outgoing: [0.75, 1.25, 1, 1]))
        // 0 and 1 exchange halves, 1 gives 0 its sum; then 0 and 2 exchange halves, and 2 gives 0 its sum.
        #expect(
            ReductionRoute.halving.load(owner: 0, RankLayout(hosts: 3))
                == Load(incoming: [2, 0.5, 0.5], outgoing: [1, 1, 1]))
        // Rank 1, which has finished its own part, takes the role of 0 in the gather: it sends what 0 and 2 have.
        #expect(
            ReductionRoute.halving.load(owner: 1, RankLayout(hosts: 3))
                == Load(incoming: [1.5, 1.5, 0.5], outgoing: [1.5, 1, 1]))
        // 2 ranks per host: halves stay within a host, quarters are sent between hosts, also in the gather.
        #expect(
            ReductionRoute.halving.load(owner: 0, RankLayout(hosts: 2, perHost: 2))
                == Load(incoming: [1, 0.5], outgoing: [0.5, 1]))
    }

    // MARK: Steps

    @Test(arguments: [ReduceDType.fp32, .bf16])
    func oneHostHasNoNetwork(_ reduceDType: ReduceDType) {
        let slow = NetworkModel(latencySeconds: 10, secondsPerByte: 10, drivingSecondsPerByte: 10)
        for dtype in [DType.float32, .bfloat16] {
            let step = model(slow, reduceDType, dtype: dtype).predict(
                RankLayout(hosts: 1), images: 8, microBatch: nil)
            #expect(step.communicationSeconds == 0)
            #expect(step.stepSeconds == 1.9)
        }
    }

    @Test(arguments: [ReduceDType.fp32, .bf16], [Sharding.optimizer, .none])
    func aPerfectNetworkCostsNothing(_ reduceDType: ReduceDType, _ sharding: Sharding) {
        let perfect = NetworkModel(latencySeconds: 0, secondsPerByte: 0, drivingSecondsPerByte: 0)
        for hosts in [2, 4, 8, 64] {
            let step = model(perfect, reduceDType, sharding: sharding).predict(
                RankLayout(hosts: hosts), images: 8, microBatch: nil)
            #expect(step.communicationSeconds < 1e-9)
            let update = sharding == .optimizer ? 0.4 / Double(hosts) : 0.4
            #expect(abs(step.stepSeconds - 1.5 - update) < 1e-9)
        }
    }

    @Test(arguments: [ReduceDType.fp32, .bf16], [2, 3, 4, 8, 64])
    func fasterNetworksAreNeverSlower(_ reduceDType: ReduceDType, _ hosts: Int) {
        var last = Double.infinity
        for bitsPerSecond in stride(from: 6.0, through: 11, by: 0.25).map({ pow(10, $0) }) {
            var network = network
            network.secondsPerByte = 8 / bitsPerSecond
            network.drivingSecondsPerByte = 1e-9
            let step = model(network, reduceDType).predict(
                RankLayout(hosts: hosts), images: 8, microBatch: nil)
            #expect(step.stepSeconds <= last + 1e-12)
            last = step.stepSeconds
        }
        #expect(last > 1.5)
    }

    /// Two hosts, 64,000 bytes per bucket in fp32, each sent to the rank that owns the slice, at 10 μs per byte: 0.64 s
    /// each.
    @Test func whatTheBackwardPassDoesNotHideIsWaitedFor() {
        let slow = NetworkModel(latencySeconds: 1e-3, secondsPerByte: 1e-5, drivingSecondsPerByte: 0)
        let step = model(slow).predict(RankLayout(hosts: 2), images: 8, microBatch: nil)
        // The second half of the store belongs to rank 1, whose link is busy from 1.1 s to 2.38 s; that of rank 0
        // from 1.3 s to 2.58 s, 1.08 s after the pass, and the last message takes α.
        #expect(abs(step.reductionSeconds - 1.081) < 1e-9)
        #expect(step.drivingSeconds == 0)
        #expect(step.agreementSeconds == 1e-3)
        // bf16 halves the bytes: 0.32 s each, until 1.94 s.
        let half = model(slow, .bf16).predict(RankLayout(hosts: 2), images: 8, microBatch: nil)
        #expect(abs(half.reductionSeconds - 0.441) < 1e-9)
    }

    /// The same links. Rank 0 owns the first half of the store, and rank 1 waits for all of its first run, 0.64 s; 0.1 s
    /// later it needs the second, of which 0.54 s remain. The data from rank 1 to rank 0 has arrived by then.
    @Test func whatTheForwardPassDoesNotHideIsWaitedFor() {
        let slow = NetworkModel(latencySeconds: 1e-3, secondsPerByte: 1e-5, drivingSecondsPerByte: 0)
        let two = RankLayout(hosts: 2)
        let step = model(slow).predict(two, images: 8, microBatch: nil)
        #expect(abs(step.gatherSeconds - (1e-3 + 0.64 + 0.54)) < 1e-9)
        // bf16: vectors of 3,200 bytes per rank are sent first, then half of the bytes.
        let narrow = model(slow, dtype: .bfloat16).predict(two, images: 8, microBatch: nil)
        #expect(abs(narrow.gatherSeconds - (1e-3 + 0.032 + 0.32 + 0.22)) < 1e-9)
        // With micro-batches, everything arrives before the second one.
        let parts = model(slow).predict(two, images: 16, microBatch: 8)
        #expect(abs(parts.gatherSeconds - step.gatherSeconds) < 1e-9)
        // Without sharding every rank has all weights.
        #expect(model(slow, sharding: .none).predict(two, images: 8, microBatch: nil).gatherSeconds == 0)
        // Ten times as fast, only the first run is waited for: 64 ms.
        let fast = NetworkModel(latencySeconds: 1e-3, secondsPerByte: 1e-6, drivingSecondsPerByte: 0)
        #expect(abs(model(fast).predict(two, images: 8, microBatch: nil).gatherSeconds - 0.065) < 1e-9)
        // Many hosts: an owner sends a copy to each of the others.
        let eight = model(slow).predict(RankLayout(hosts: 8), images: 8, microBatch: nil)
        #expect(abs(eight.gatherSeconds - (1e-3 + 7 * 0.32)) < 1e-9)
    }

    /// The processor that computes also moves the data: 0.1 μs per byte, of 10 μs in the queue.
    @Test func drivingTransfersSlowsThePassDown() {
        let busy = NetworkModel(latencySeconds: 0, secondsPerByte: 1e-6, drivingSecondsPerByte: 1e-7)
        let step = model(busy).predict(RankLayout(hosts: 2), images: 8, microBatch: nil)
        // Each bucket is sent long before the next one is ready; only the last 0.1 s of the last bucket remain. Each rank
        // exchanged 64,000 bytes per pair of buckets, half of them in each direction, and as many bytes of weights, half
        // of them while it waited for the first.
        #expect(step.drivingSeconds > 0.9 * 1e-7 * 192_000)
        #expect(step.drivingSeconds <= 1e-7 * 192_000 + 1e-12)
        #expect(step.reductionSeconds < 1e-9)
    }

    @Test func everyOwnerWaitsForAllTheOthersInBF16() {
        // 64 ranks, the last bucket holds the slices of 16: each of those receives 63 contributions after 1.4 s.
        let slow = NetworkModel(latencySeconds: 0, secondsPerByte: 1e-5, drivingSecondsPerByte: 0)
        let step = model(slow, .bf16).predict(RankLayout(hosts: 64), images: 8, microBatch: nil)
        let slice = 64_000.0 / 64 * 2
        #expect(abs(step.reductionSeconds - (63 * slice * 1e-5 - 0.1)) < 0.02)
    }

    // MARK: Computing

    @Test func batchesLieOnALine() {
        let two = ComputeModel(
            profiles: [
                ComputeProfile(
                    batch: 4, passSeconds: 1, readySeconds: [0.5], needSeconds: [0.1], updateSeconds: 0.1,
                    activationBytes: 40),
                ComputeProfile(
                    batch: 8, passSeconds: 1.8, readySeconds: [0.9], needSeconds: [0.3], updateSeconds: 0.3,
                    activationBytes: 80),
            ], ranks: 1, threads: 1, copyBytesPerSecond: 1, otherBytes: 0)
        let six = two.pass(batch: 6)
        #expect(abs(six.passSeconds - 1.4) < 1e-12 && abs(six.readySeconds[0] - 0.7) < 1e-12)
        #expect(abs(six.needSeconds[0] - 0.2) < 1e-12)
        #expect(six.activationBytes == 60 && abs(six.updateSeconds - 0.2) < 1e-12)
        #expect(abs(two.pass(batch: 16).passSeconds - 3.4) < 1e-12)

        // 10 images in micro-batches of 4, 4 and 2; gradients are complete only in the last one.
        let ten = two.share(10, microBatch: 4)
        #expect(abs(ten.passSeconds - (1 + 1 + 0.6)) < 1e-12)
        #expect(abs(ten.readySeconds[0] - (2 + 0.3)) < 1e-12)
        #expect(abs(ten.needSeconds[0] - 0.1) < 1e-12)
        #expect(ten.activationBytes == 40)
    }

    // MARK: Plans

    @Test func memoryIsCounted() {
        let workload = StepWorkload(
            elements: 6400, vectorElements: 640, parameters: 6000, buckets: [0..<6400], forward: [0..<6400],
            averages: 1, dtype: .bfloat16,
            reduceDType: .bf16)
        let memory = MemoryModel(workload, RankLayout(hosts: 4), activationBytes: 7, otherBytes: 9)
        #expect(memory.weightBytes == 2 * 6400 + 4 * 640)
        #expect(memory.gradientBytes == 4 * 6400)
        #expect(memory.stateBytes == 1600 * 4 * 4)  // master, two moments, an average
        #expect(memory.exchangeBytes == 2 * 6400 + 3 * 2 * 1600)
        #expect(memory.snapshotBytes == 6000 * 4 * 4 / 4)
        #expect(MemoryModel.checkpointBytes(workload) == 6000 * 16)
    }

    @Test func plansTellSpeedAndHours() throws {
        let configuration = try Configuration(yaml: Self.yaml, source: "test")
        let layouts = [RankLayout(hosts: 1), RankLayout(hosts: 2)]
        let plan = try TrainingPlan(
            configuration, workload: model(network).workload, compute: compute, network: network,
            layouts: layouts,
            scaling: .strong, diskBytesPerSecond: 1e6)
        #expect(plan.rows[0].speedUp == 1 && plan.rows[0].efficiency == 1)
        #expect(plan.rows[0].stepSeconds == 1.9 && plan.rows[0].imagesPerRank == 8)
        #expect(abs(plan.rows[0].hours - 7200 * 1.9 / 3600) < 1e-9)
        #expect(plan.rows[1].imagesPerRank == 4)
        #expect(plan.rows[1].speedUp > 1 && plan.rows[1].speedUp < 2)
        #expect(plan.saveSeconds == 63_900 * 12 / 1e6)
        #expect(try TrainingPlan(json: Data(plan.json.utf8)) == plan)

        // The batch grows with the number of ranks.
        let weak = try TrainingPlan(
            configuration, workload: model(network).workload, compute: compute, network: network,
            layouts: layouts,
            scaling: .weak(perRank: 8), diskBytesPerSecond: 1e6)
        #expect(weak.rows.map(\.batchSize) == [8, 16] && weak.rows.map(\.imagesPerRank) == [8, 8])

        #expect(throws: PlanError.self) {
            try TrainingPlan.imagesPerRank(configuration.train, RankLayout(hosts: 9), .strong)
        }
        #expect(try TrainingPlan.batchesToTime(configuration.train, layouts, .strong) == [4, 8])
        #expect(try TrainingPlan.batchesToTime(configuration.train, [layouts[0]], .strong) == [8])
        #expect(try TrainingPlan.batchesToTime(configuration.train, layouts, .weak(perRank: 40)) == [8, 16])
    }

    @Test func ratesAndTimesAreReadAsPeopleWriteThem() {
        #expect(Quantity.bitsPerSecond("10G") == 1e10)
        #expect(Quantity.bitsPerSecond("100Mbit/s") == 1e8)
        #expect(Quantity.bitsPerSecond("2.5gbit") == 2.5e9)
        #expect(Quantity.seconds("50us") == 50 * 1e-6)
        #expect(Quantity.seconds("0.2ms") == 0.2 * 1e-3)
        #expect(Quantity.bytesPerSecond("500MB/s") == 5e8)
        for wrong in ["", "G", "fast", "-1G", "0", "1e9", "10 G", "nan"] {
            #expect(Quantity.bitsPerSecond(wrong) == nil, "\(wrong)")
        }
        #expect(Quantity.seconds("5") == nil && Quantity.seconds("5m") == nil)
    }

    private static let yaml = """
        name: test
        data: {path: synthetic-faces, size: 32}
        model: {sample_size: 32, in_channels: 3, out_channels: 3, block_out_channels: [24, 48], layers_per_block: 1,
            down_block_types: [DownBlock2D, AttnDownBlock2D], up_block_types: [AttnUpBlock2D, UpBlock2D],
            attention_head_dim: 24, norm_num_groups: 8}
        ema: {decays: []}
        train: {steps: 7200, batch_size: 8, precision: fp32, checkpoint_every: 0}
        """
}
