import Communication
import Configuration
import Foundation
import TensorCore

/// The data that ranks exchange in a step: sizes that follow from the model and the configuration.
package struct StepWorkload: Equatable, Sendable {
    /// Number of elements in the flat parameter store including padding, and the number of vector elements
    /// among them.
    package var elements: Int
    package var vectorElements: Int
    /// Number of values without padding.
    package var parameters: Int
    /// Ranges of the flat store, in the order in which the backward pass completes them.
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
        (self.elements, self.vectorElements) = (elements, vectorElements)
        (self.parameters, self.buckets, self.forward) = (parameters, buckets, forward)
        (self.averages, self.sharding) = (averages, sharding)
        (self.dtype, self.reduceDType) = (dtype, reduceDType)
    }

    package init(
        _ store: ParameterStore, averages: Int, sharding: Sharding, dtype: DType, reduceDType: ReduceDType
    ) {
        self.init(
            elements: store.count, vectorElements: store.vectorElements, parameters: store.parameterCount,
            buckets: GradientBuckets.ranges(of: store), forward: ForwardOrder.ranges(of: store),
            averages: averages, sharding: sharding, dtype: dtype, reduceDType: reduceDType)
    }

    /// Bytes per weight as the kernels read it, and bytes of the vectors, which bf16 stores in addition.
    var weightBytes: Double { dtype == .bfloat16 ? 2 : 4 }
    var vectorBytes: Double { dtype == .bfloat16 ? 4 * Double(vectorElements) : 0 }
}

/// The predicted time of a step and its parts.
package struct StepPrediction: Codable, Equatable, Sendable {
    /// Forward and backward passes.
    package var passSeconds: Double
    /// Additional time of the passes because the same processor drives the transfers.
    package var drivingSeconds: Double
    /// Waiting for gradients after the passes.
    package var reductionSeconds: Double
    /// The all-reduce of the gradient norm and of the check that all values are finite.
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

/// Predicts the time of `TrainingStep` on many hosts.
package struct StepModel: Sendable {
    package var workload: StepWorkload
    package var compute: ComputeModel
    package var network: NetworkModel

    package init(workload: StepWorkload, compute: ComputeModel, network: NetworkModel) {
        (self.workload, self.compute, self.network) = (workload, compute, network)
    }

    /// - Parameters:
    ///   - images: the largest number of images on any rank.
    ///   - microBatch: images per pass; nil: all.
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

    /// The transfers that `BucketReducer` starts, in its order.
    func pieces(_ profile: ComputeProfile, _ layout: RankLayout, _ route: ReductionRoute)
        -> [ReductionTimeline.Piece]
    {
        let slices = ShardLayout(count: workload.elements, ranks: layout.ranks).all
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

    /// The transfers of `ParameterAllGather`, in its order: vectors first.
    func weights(_ profile: ComputeProfile, _ layout: RankLayout) -> [GatherTimeline.Piece] {
        guard workload.sharding == .optimizer else { return [] }
        let slices = ShardLayout(count: workload.elements, ranks: layout.ranks).all
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

    /// The ranks of one host copy the weights from each other.
    private func copies(_ layout: RankLayout) -> Double {
        guard workload.sharding == .optimizer, layout.hosts == 1 else { return 0 }
        let others = 1 - 1 / Double(layout.ranks)
        return memory(
            2 * others * (workload.weightBytes * Double(workload.elements) + workload.vectorBytes))
    }

    /// Seconds to add received gradients in memory: 12 bytes per element, 6 more if they are rounded and
    /// widened; 20 on one host, where ranks copy them from each other.
    private func sums(_ layout: RankLayout) -> Double {
        let others = 1 - 1 / Double(layout.ranks)
        let bytes = layout.hosts == 1 ? 20.0 : workload.reduceDType == .bf16 ? 18 : 12
        return memory(bytes * others * Double(workload.elements))
    }

    /// Without sharding, the rounded sums are sent to all ranks.
    private func spread(_ layout: RankLayout) -> Double {
        guard workload.sharding == .none, workload.reduceDType == .bf16 || layout.hosts == 1 else { return 0 }
        let bytes = (workload.reduceDType == .bf16 ? 2.0 : 4) * Double(workload.elements)
        let others = 1 - 1 / Double(layout.ranks)
        return layout.hosts == 1 ? memory(2 * others * bytes) : network.allGather(bytes: bytes, layout)
    }

    /// Seconds to read and write this number of bytes. A copy reads and writes each of its bytes.
    private func memory(_ bytes: Double) -> Double { bytes / (2 * compute.copyBytesPerSecond) }
}
