/// The computation of one rank in a step, without other ranks: measured, or derived from the time of a step.
package struct ComputeProfile: Codable, Equatable, Sendable {
    /// Images per pass.
    package var batch: Int
    /// Seconds from the start of the step to the end of the backward pass.
    package var passSeconds: Double
    /// For each gradient bucket, in order: seconds after the start at which it is complete.
    package var readySeconds: [Double]
    /// For each range of the forward order: seconds after the start at which it is first read.
    package var needSeconds: [Double]
    /// Seconds for the gradient norm, AdamW and averages of all parameters.
    package var updateSeconds: Double
    /// Bytes of activations and scratch memory.
    package var activationBytes: Int

    package init(
        batch: Int, passSeconds: Double, readySeconds: [Double], needSeconds: [Double],
        updateSeconds: Double, activationBytes: Int
    ) {
        self.batch = batch
        self.passSeconds = passSeconds
        self.readySeconds = readySeconds
        self.needSeconds = needSeconds
        self.updateSeconds = updateSeconds
        self.activationBytes = activationBytes
    }
}

/// The computation on one rank of a host on which all ranks compute at the same time.
package struct ComputeModel: Codable, Equatable, Sendable {
    /// One or two profiles with ascending batch sizes.
    package var profiles: [ComputeProfile]
    /// Number of ranks that computed at the same time, and threads per rank.
    package var ranks: Int
    package var threads: Int
    /// Throughput of a memory copy of one rank in bytes/s, while all ranks copy.
    package var copyBytesPerSecond: Double
    /// Memory of the process that `MemoryModel` does not count: the program, its libraries, packed weights.
    package var otherBytes: Int

    package init(
        profiles: [ComputeProfile], ranks: Int, threads: Int, copyBytesPerSecond: Double, otherBytes: Int
    ) {
        precondition(!profiles.isEmpty, "no profile")
        self.profiles = profiles
        self.ranks = ranks
        self.threads = threads
        self.copyBytesPerSecond = copyBytesPerSecond
        self.otherBytes = otherBytes
    }

    /// Forward and backward pass for a batch size: linear in the batch size through both profiles, or
    /// proportional to the only one.
    package func pass(batch: Int) -> ComputeProfile {
        let first = profiles[0]
        guard let last = profiles.last, last.batch != first.batch else {
            let scale = Double(batch) / Double(first.batch)
            return ComputeProfile(
                batch: batch, passSeconds: scale * first.passSeconds,
                readySeconds: first.readySeconds.map { scale * $0 },
                needSeconds: first.needSeconds.map { scale * $0 }, updateSeconds: first.updateSeconds,
                activationBytes: Int(scale * Double(first.activationBytes)))
        }
        let place = Double(batch - first.batch) / Double(last.batch - first.batch)
        func line(_ a: Double, _ b: Double) -> Double { max(0, a + place * (b - a)) }
        return ComputeProfile(
            batch: batch, passSeconds: line(first.passSeconds, last.passSeconds),
            readySeconds: zip(first.readySeconds, last.readySeconds).map(line),
            needSeconds: zip(first.needSeconds, last.needSeconds).map(line),
            updateSeconds: (first.updateSeconds + last.updateSeconds) / 2,
            activationBytes: Int(line(Double(first.activationBytes), Double(last.activationBytes))))
    }

    /// All passes over a rank's share in micro-batches. Weights are needed in the first pass, and buckets are
    /// complete in the last.
    package func share(_ images: Int, microBatch: Int?) -> ComputeProfile {
        let micro = min(images, microBatch ?? images)
        let last = images % micro == 0 ? micro : images % micro
        let before = Double((images - last) / micro) * pass(batch: micro).passSeconds
        var profile = pass(batch: last)
        profile.batch = images
        profile.passSeconds += before
        profile.readySeconds = profile.readySeconds.map { before + $0 }
        if before > 0 { profile.needSeconds = pass(batch: micro).needSeconds }
        if last < micro { profile.activationBytes = pass(batch: micro).activationBytes }
        return profile
    }
}
