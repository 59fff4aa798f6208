import Checkpointing
import Communication
import TensorCore

/// This rank's part of the training state: fp32 master weights, AdamW moments, averages.
///
/// A rank updates its slice of the flat store, or with `Sharding.none` all of it; then the ranks exchange the
/// weights that kernels read. In fp32 these are the masters themselves, which are in the store; in bf16 the store
/// contains only rounded matrices, and the masters are here.
package final class ModelState {
    package struct Settings: Sendable {
        package var sharding: Sharding
        /// Type of activations and of the matrices that kernels read.
        package var dtype: DType
        package var optimizer: AdamW.Settings
        package var averages: [WeightAverage.Settings]

        package init(
            sharding: Sharding = .optimizer, dtype: DType = .float32,
            optimizer: AdamW.Settings = AdamW.Settings(),
            averages: [WeightAverage.Settings] = []
        ) {
            (self.sharding, self.dtype) = (sharding, dtype)
            (self.optimizer, self.averages) = (optimizer, averages)
        }
    }

    package let settings: Settings
    package let store: ParameterStore
    package let slices: ShardLayout
    /// The flat elements that this rank owns; `master`, moments and averages begin at its start.
    package let range: Range<Int>
    package let master: UnsafeMutablePointer<Float>
    package let optimizer: AdamW
    package let averages: [WeightAverage]
    /// Set on several hosts, where updated weights are in flight while the next step begins.
    let gather: ParameterAllGather?
    private let communicator: Communicator
    private let ownsMaster: Bool

    /// Starts from the store's current values, which are the same on every rank.
    ///
    /// - Parameter hosts: a simulated placement of the ranks, for tests; nil: the actual one.
    package init(
        _ store: ParameterStore, _ settings: Settings, _ communicator: Communicator,
        hosts: HostMap? = nil
    ) {
        (self.store, self.settings, self.communicator) = (store, settings, communicator)
        slices = ShardLayout(count: store.count, ranks: communicator.size)
        range = settings.sharding == .optimizer ? slices[communicator.rank] : 0..<store.count
        ownsMaster = settings.dtype == .bfloat16
        if ownsMaster {
            master = .allocate(capacity: max(1, range.count))
            master.initialize(from: store.values + range.lowerBound, count: range.count)
            store.narrow()
        } else {
            master = store.values + range.lowerBound
        }
        optimizer = AdamW(count: range.count, settings.optimizer)
        averages = settings.averages.map { [range, master] in
            WeightAverage(master, count: range.count, $0)
        }
        gather =
            settings.sharding == .optimizer
            ? ParameterAllGather(store, slices, communicator, hosts: hosts) : nil
    }

    deinit { if ownsMaster { master.deallocate() } }

    /// This rank's part of the gradients.
    var gradients: UnsafeMutablePointer<Float> { store.gradients + range.lowerBound }

    /// One update from this rank's gradients. Collective. The other ranks' new weights may still be in flight
    /// afterwards; see `completeWeights`.
    func update(_ update: Int, learningRate: Float, gradientScale: Float) throws(CommunicationError) {
        try completeWeights()
        optimizer.step(
            master, gradients: gradients, update: update, learningRate: learningRate,
            gradientScale: gradientScale)
        for average in averages { average.step(update: update, master) }
        try startPublishing(master)
    }

    /// Returns when kernels may read all weights. Not needed within a `TrainingStep`, which waits for the weights
    /// of each instruction. Collective.
    package func completeWeights() throws(CommunicationError) { try gather?.finish() }

    /// Tries to complete the messages in flight when the run ends with an error.
    func drain() { gather?.drain(within: 5) }

    /// Makes changed masters visible to the kernels. Collective.
    package func publishMasters() throws(CommunicationError) { try publish(master) }

    private func publish(_ values: UnsafePointer<Float>) throws(CommunicationError) {
        try startPublishing(values)
        try completeWeights()
    }

    private func startPublishing(_ values: UnsafePointer<Float>) throws(CommunicationError) {
        try completeWeights()
        store.setValues(range, from: values)
        if let gather {
            gather.start()
        } else if settings.sharding == .optimizer, communicator.size > 1 {
            for (memory, parts, elementSize) in store.kernelMemory(dividedInto: slices.all) {
                try communicator.allGather(inPlace: memory, parts: parts, elementSize: elementSize)
            }
        }
        store.valuesChanged()
    }

    /// Runs `body` while kernels read an average instead of the weights. Collective; `body` must throw on all
    /// ranks or on none.
    package func withAverage<R>(_ average: WeightAverage, _ body: () throws -> R) throws -> R {
        // In fp32 the masters occupy the memory that the average needs.
        let kept = ownsMaster ? [] : Array(UnsafeBufferPointer(start: master, count: range.count))
        try publish(average.values)
        let result = Result { try body() }
        if case .failure(let error) = result, error is CommunicationError { throw error }
        if !ownsMaster { master.update(from: kept, count: range.count) }
        try publishMasters()
        return try result.get()
    }

    /// Gathers the ranks' parts of `values`, the master or an average. Collective.
    ///
    /// - Parameter whole: of the size of the store; contains all values on every rank afterwards.
    func collect(_ values: UnsafePointer<Float>, into whole: UnsafeMutablePointer<Float>)
        throws(CommunicationError)
    {
        (whole + range.lowerBound).update(from: values, count: range.count)
        guard settings.sharding == .optimizer, communicator.size > 1 else { return }
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: whole, count: 4 * store.count),
            parts: slices.all.map { 4 * $0.lowerBound..<4 * $0.upperBound }, elementSize: 4)
    }

    /// The average from which samples are generated; nil if there is none.
    package var slowestAverage: WeightAverage? {
        averages.max { $0.settings.profile < $1.settings.profile }
    }

    /// This rank's part of the power-function averages, the contents of a snapshot.
    package var powerAverages: [StateBuffer] {
        averages.filter { $0.settings.profile.sigmaRel != nil }.map(buffer)
    }

    private func buffer(_ average: WeightAverage) -> StateBuffer {
        StateBuffer(average.settings.profile.name, average.values, range)
    }

    /// This rank's part of a checkpoint: masters, averages such as "ema-0.9999", moments.
    ///
    /// - Parameter modelFolder: the folder of the masters, "unet" or "vae".
    package func buffers(modelFolder: String) -> [StateBuffer] {
        [StateBuffer(modelFolder, master, range)]
            + averages.map(buffer)
            + [
                StateBuffer("exp_avg", optimizer.expAvg, range),
                StateBuffer("exp_avg_sq", optimizer.expAvgSq, range),
            ]
    }
}
