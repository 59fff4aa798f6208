/// The memory of a rank and the size of a checkpoint, computed from tensor sizes.
package struct MemoryModel: Codable, Equatable, Sendable {
    /// Weights for the kernels: fp32, or matrices in bf16 and vectors in fp32.
    package var weightBytes: Int
    package var gradientBytes: Int
    /// fp32 masters (for bf16), moments and averages of the rank's slice.
    package var stateBytes: Int
    /// Maximum size of gradients in flight.
    package var exchangeBytes: Int
    /// The copy from which a checkpoint is written.
    package var snapshotBytes: Int
    package var activationBytes: Int
    /// Measured: the program, its libraries, packed weights.
    package var otherBytes: Int

    package init(_ workload: StepWorkload, _ layout: RankLayout, activationBytes: Int, otherBytes: Int) {
        let isHalf = workload.dtype == .bfloat16
        let ranks = layout.ranks
        let slice =
            workload.sharding == .optimizer ? (workload.elements + ranks - 1) / ranks : workload.elements
        weightBytes = isHalf ? 2 * workload.elements + 4 * workload.vectorElements : 4 * workload.elements
        gradientBytes = 4 * workload.elements
        stateBytes = slice * 4 * ((isHalf ? 1 : 0) + 2 + workload.averages)
        if ranks == 1 {
            exchangeBytes = 0
        } else if workload.reduceDType == .bf16 {
            exchangeBytes = 2 * workload.elements + 2 * slice * (ranks - 1)
        } else if layout.hosts == 1 {
            exchangeBytes = 1 << 20
        } else {
            // Open MPI's own copies of the data in flight.
            let isHalving =
                ReductionRoute(sharding: workload.sharding, reduceDType: .fp32, ranks: ranks) == .halving
            exchangeBytes = (isHalving ? 8 : 4) * workload.elements
        }
        snapshotBytes = Self.checkpointBytes(workload) / ranks
        self.activationBytes = activationBytes
        self.otherBytes = otherBytes
    }

    package var totalBytes: Int {
        weightBytes + gradientBytes + stateBytes + exchangeBytes + snapshotBytes + activationBytes
            + otherBytes
    }

    /// Weights, averages and both moments of every parameter, in fp32.
    package static func checkpointBytes(_ workload: StepWorkload) -> Int {
        4 * workload.parameters * (3 + workload.averages)
    }
}

/// Parses rates and times in common notations.
package enum Quantity {
    /// Parses "10G", "100Mbit" or "2.5gbit/s" in bits/s; nil for anything else.
    package static func bitsPerSecond(_ text: String) -> Double? {
        var text = text.lowercased()
        for ending in ["/s", "ps", "bit"] where text.hasSuffix(ending) { text.removeLast(ending.count) }
        return number(text, units: ["k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "": 1])
    }

    /// Parses "50us", "0.2ms" or "1s" in seconds; nil for anything else.
    package static func seconds(_ text: String) -> Double? {
        number(
            text.lowercased(), units: ["ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1])
    }

    /// Parses "500M" or "2.5G" in bytes/s; nil for anything else.
    package static func bytesPerSecond(_ text: String) -> Double? {
        var text = text.lowercased()
        for ending in ["/s", "b"] where text.hasSuffix(ending) { text.removeLast(ending.count) }
        return number(text, units: ["k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "": 1])
    }

    private static func number(_ text: String, units: [String: Double]) -> Double? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let unit = units[String(text.dropFirst(digits.count))], let value = Double(digits),
            value.isFinite, value > 0
        else { return nil }
        return value * unit
    }
}
