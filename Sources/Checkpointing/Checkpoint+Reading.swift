import Communication

extension Checkpoint {
    /// Reads a range of a run's flat buffer out of a folder: of each tensor only the bytes that lie in the range,
    /// straight to their place. Any number of ranks may each read its slice, whatever number wrote the checkpoint.
    /// Checksums are the business of `verify`.
    ///
    /// - Parameters:
    ///   - range: elements of the flat buffer that `table` describes.
    ///   - values: room for `range.count` elements, where `values[0]` is element `range.lowerBound`. What lies between
    ///     tensors becomes 0. Values have changed even where this throws.
    /// - Throws: where the checkpoint's tensors do not cover the range's elements, each exactly once, or a file cannot
    ///   be read.
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
        // A checkpoint holds a tensor once (`WeightFile.all`), so each was read once; what is left was never there.
        if let entry = wanted.values.min(by: { $0.offset < $1.offset }) {
            throw CheckpointError(
                .incompatible, at(folder), "has \(wanted.count) tensors too few, first '\(entry.name)'")
        }
    }

    /// Verifies the checkpoint and loads all buffers on one process. Values have changed even where this throws.
    package func load(into buffers: [StateBuffer], _ table: TensorTable) throws {
        try checkFits(buffers, table)
        try load(into: buffers, table, SingleProcess())
    }

    /// Verifies the checkpoint, each rank its share of the bytes, then loads on each rank what it holds. Collective;
    /// throws on all ranks alike.
    package func load(into buffers: [StateBuffer], _ table: TensorTable, _ communicator: any Communicator)
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
