import Communication

extension Checkpoint {
    /// Reads a range of a run's flat buffer from a folder: of each tensor only the bytes in the range,
    /// directly to their destination. Each rank can read its own slice, regardless of the number of ranks
    /// that wrote the checkpoint. Does not compare checksums; `verify` does.
    ///
    /// - Parameters:
    ///   - range: elements of the flat buffer that `table` describes.
    ///   - values: room for `range.count` elements; `values[0]` is element `range.lowerBound`. Gaps between
    ///     tensors are set to 0. The contents are undefined if this throws.
    /// - Throws: if the checkpoint's tensors do not cover the range's elements exactly once, or if a file
    ///   cannot be read.
    package func read(
        folder: String, range: Range<Int>, table: TensorTable, into values: UnsafeMutablePointer<Float>
    ) throws(CheckpointError) {
        var wanted: [String: TensorTable.Entry] = [:]
        var end = range.lowerBound
        for entry in table.entries where entry.range.overlaps(range) {
            wanted[entry.name] = entry
            let part = entry.range.clamped(to: range)
            (values + (end - range.lowerBound)).update(repeating: 0, count: part.lowerBound - end)
            end = part.upperBound
        }
        (values + (end - range.lowerBound)).update(repeating: 0, count: range.upperBound - end)

        for weight in weights where weight.file.folder == folder {
            var reader: CheckpointReader?
            for tensor in weight.tensors {
                guard let entry = wanted.removeValue(forKey: tensor.entry.name) else { continue }
                guard entry.shape == tensor.entry.shape else {
                    throw CheckpointError(
                        .incompatible, at(weight.file.path),
                        "'\(entry.name)' is \(tensor.entry.shape), expected \(entry.shape)")
                }
                if reader == nil {
                    reader = try CheckpointReader(at(weight.file.path), expected: weight.file.bytes)
                }
                let part = entry.range.clamped(to: range)
                let bytes = UnsafeMutableBufferPointer(
                    start: values + (part.lowerBound - range.lowerBound), count: part.count)
                try reader?.read(
                    at: tensor.range.lowerBound + (part.lowerBound - entry.offset)
                        * MemoryLayout<Float>.stride,
                    into: UnsafeMutableRawBufferPointer(bytes))
            }
        }
        // A checkpoint contains each tensor once (`WeightFile.all`), so each was read at most once; the
        // remaining ones are missing from the checkpoint.
        if let entry = wanted.values.min(by: { $0.offset < $1.offset }) {
            throw CheckpointError(
                .incompatible, at(folder), "lacks \(wanted.count) tensors, first '\(entry.name)'")
        }
    }

    /// Verifies the checkpoint and loads all buffers in one process. The buffers' contents are undefined if
    /// this throws.
    package func load(into buffers: [StateBuffer], _ table: TensorTable) throws {
        try checkFits(buffers, table)
        try load(into: buffers, table, Communicator())
    }

    /// Verifies the checkpoint, sharing the bytes among the ranks, then loads each rank's buffers.
    /// Collective; an error is thrown on all ranks.
    package func load(into buffers: [StateBuffer], _ table: TensorTable, _ communicator: Communicator)
        throws
    {
        try communicator.collectively("verifying \(path)") {
            try verify(verificationParts(over: communicator.size)[communicator.rank])
        }
        try communicator.collectively("loading \(path)") {
            for buffer in buffers {
                try read(folder: buffer.folder, range: buffer.range, table: table, into: buffer.values)
            }
        }
    }
}
