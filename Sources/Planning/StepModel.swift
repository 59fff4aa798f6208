import Communication
import Configuration
import Foundation
import TensorCore

/// What the ranks of a step exchange: the sizes that follow from the model and the configuration.
package struct StepWorkload: Equatable, Sendable {
    /// Elements of the flat parameter store, padding included, and of them those of vectors.
    package var elements: Int
    package var vectorElements: Int
    /// Values without padding.
    package var parameters: Int
    /// Ranges of the flat store, in the order in which backward completes them.
    package var buckets: [Range<Int>]
    /// Ranges of the flat store, in the order in which the forward pass reads them.
    package var forward: [Range<Int>]
    package var averages: Int
    package var sharding: Sharding
    package var dtype: DType
    package var reduceDType: ReduceDType

    package init(
        elements: Int, vectorElements: Int, parameters: Int, buckets: [Range<Int>],
        forward: [Range<Int>], averages: Int = 0,
        sharding: Sharding = .optimizer, dtype: DType = .float32, reduceDType: ReduceDType = .fp32
    ) {
        self.elements = elements
        self.vectorElements = vectorElements
        self.parameters = parameters
        self.buckets = buckets
        self.forward = forward
        self.averages = averages
        self.sharding = sharding
        self.dtype = dtype
        self.reduceDType = reduceDType
    }

    package init(
        _ store: ParameterStore, averages: Int, sharding: Sharding, dtype: DType, reduceDType: ReduceDType
    ) {
        self.init(
            elements: store.count, vectorElements: store.vectorElements, parameters: store.parameterCount,
            buckets: GradientBuckets.ranges(of: store), forward: ForwardOrder.ranges(of: store),
            averages: averages, sharding: sharding, dtype: dtype, reduceDType: reduceDType)
    }

    /// Bytes of a weight as kernels read it; and of the vectors, which bf16 keeps beside.
    var weightBytes: Double { dtype == .bfloat16 ? 2 : 4 }
    var vectorBytes: Double { dtype == .bfloat16 ? 4 * Double(vectorElements) : 0 }
}

/// Where the seconds of a predicted step go.
package struct StepPrediction: Codable, Equatable, Sendable {
    /// Forward and backward.
    package var passSeconds: Double
    /// By which the passes take longer since the same processor drives the transfers.
    package var drivingSeconds: Double
    /// Waiting for gradients after the passes.
    package var reductionSeconds: Double
    /// Agreeing on the gradient's norm and that all is finite.
    package var agreementSeconds: Double
    /// Norm, AdamW and averages of a rank's slice.
    package var updateSeconds: Double
    /// Waiting for updated weights during the forward pass; on one host, copying them.
    package var gatherSeconds: Double

    package var communicationSeconds: Double {
        drivingSeconds + reductionSeconds + agreementSeconds + gatherSeconds
    }
    package var stepSeconds: Double { passSeconds + updateSeconds + communicationSeconds }
    package var communicationShare: Double { communicationSeconds / stepSeconds }
}

/// The time of `DataParallelStep` on many hosts.
package struct StepModel: Sendable {
    package var workload: StepWorkload
    package var compute: ComputeModel
    package var network: NetworkModel

    package init(workload: StepWorkload, compute: ComputeModel, network: NetworkModel) {
        self.workload = workload
        self.compute = compute
        self.network = network
    }

    /// - Parameters:
    ///   - images: of the rank with the most.
    ///   - microBatch: images taken at once; nil: all.
    package func predict(_ layout: RankLayout, images: Int, microBatch: Int?) -> StepPrediction {
        let profile = compute.share(images, microBatch: microBatch)
        let route = ReductionRoute(
            sharding: workload.sharding, reduceDType: workload.reduceDType, ranks: layout.ranks)
        let reduction = ReductionTimeline.run(
            pieces(profile, layout, route), end: profile.passSeconds, network, layout, route)
        let gather = GatherTimeline.run(weights(profile, layout), network, layout)
        let slice = workload.sharding == .optimizer ? 1 / Double(layout.ranks) : 1
        return StepPrediction(
            passSeconds: profile.passSeconds, drivingSeconds: reduction.driving + gather.driving,
            reductionSeconds: reduction.exposed + sums(layout) + spread(layout),
            agreementSeconds: Double(layout.treeDepth) * network.latencySeconds,
            updateSeconds: slice * profile.updateSeconds,
            gatherSeconds: gather.exposed + copies(layout))
    }

    /// What `BucketReducer` starts, in its order.
    func pieces(_ profile: ComputeProfile, _ layout: RankLayout, _ route: ReductionRoute)
        -> [ReductionTimeline.Piece]
    {
        let slices = FlatSlices(count: workload.elements, ranks: layout.ranks).all
        let elementBytes = workload.reduceDType == .bf16 ? 2.0 : 4.0
        var latest = 0.0
        return zip(workload.buckets, profile.readySeconds).flatMap { bucket, ready in
            latest = max(latest, ready)
            guard route != .ring else {
                return [ReductionTimeline.Piece(ready: latest, owner: 0, bytes: 4 * Double(bucket.count))]
            }
            return slices.enumerated().compactMap { rank, slice in
                let range = bucket.clamped(to: slice)
                if range.isEmpty { return nil }
                return ReductionTimeline.Piece(
                    ready: latest, owner: rank, bytes: elementBytes * Double(range.count))
            }
        }
    }

    /// What `WeightGather` brings, in its order: vectors first.
    func weights(_ profile: ComputeProfile, _ layout: RankLayout) -> [GatherTimeline.Piece] {
        guard workload.sharding == .optimizer else { return [] }
        let slices = FlatSlices(count: workload.elements, ranks: layout.ranks).all
        let vectors = slices.indices.map { rank in
            GatherTimeline.Piece(
                need: 0, owner: rank, bytes: workload.vectorBytes / Double(layout.ranks))
        }
        var need = 0.0
        let matrices = zip(workload.forward, profile.needSeconds).flatMap { range, seconds in
            need = max(need, seconds)
            return slices.enumerated().compactMap { rank, slice -> GatherTimeline.Piece? in
                let part = range.clamped(to: slice)
                guard !part.isEmpty else { return nil }
                return GatherTimeline.Piece(
                    need: need, owner: rank, bytes: workload.weightBytes * Double(part.count))
            }
        }
        return (workload.vectorBytes > 0 ? vectors : []) + matrices
    }

    /// Ranks of one host copy the weights from each other.
    private func copies(_ layout: RankLayout) -> Double {
        guard workload.sharding == .optimizer, layout.hosts == 1 else { return 0 }
        let others = 1 - 1 / Double(layout.ranks)
        return memory(
            2 * others * (workload.weightBytes * Double(workload.elements) + workload.vectorBytes))
    }

    /// Seconds of adding what came, in memory: 12 bytes an element; 6 more where it is rounded and widened; 20 on
    /// one host, where the ranks copy it from each other.
    private func sums(_ layout: RankLayout) -> Double {
        let others = 1 - 1 / Double(layout.ranks)
        let bytes = layout.hosts == 1 ? 20.0 : workload.reduceDType == .bf16 ? 18 : 12
        return memory(bytes * others * Double(workload.elements))
    }

    /// Rounded sums go everywhere where every rank keeps everything.
    private func spread(_ layout: RankLayout) -> Double {
        guard workload.sharding == .none, workload.reduceDType == .bf16 || layout.hosts == 1 else { return 0 }
        let bytes = (workload.reduceDType == .bf16 ? 2.0 : 4) * Double(workload.elements)
        let others = 1 - 1 / Double(layout.ranks)
        return layout.hosts == 1 ? memory(2 * others * bytes) : network.allGather(bytes: bytes, layout)
    }

    /// Seconds of reading and writing so many bytes; a copy reads and writes each of its bytes.
    private func memory(_ bytes: Double) -> Double { bytes / (2 * compute.copyBytesPerSecond) }
}
