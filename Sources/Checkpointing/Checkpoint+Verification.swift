import Support

/// Verification in parts, so that ranks can share the work. A part is a tensor, the header of a weight file,
/// or a small file. Together the parts cover every byte of the checkpoint except the manifest, which is
/// verified when the checkpoint is opened.
extension Checkpoint {
    /// A part that can be verified independently.
    package struct Part: Sendable, Equatable {
        enum Content: Sendable, Equatable {
            /// The header of weight file [file]: all bytes before its tensors.
            case header(file: Int)
            /// Tensor [tensor] of weight file [file].
            case tensor(file: Int, tensor: Int)
            /// The complete file [file] of the manifest.
            case whole(file: Int)
        }

        let content: Content
        /// The file that contains the part.
        let file: CheckpointFile
        /// Number of bytes to read.
        package let bytes: Int

        var isTensor: Bool {
            if case .tensor = content { return true }
            return false
        }
    }

    /// All parts, ordered by file and by offset within the file.
    package var parts: [Part] {
        var parts: [Part] = []
        for (index, weight) in weights.enumerated() {
            parts.append(Part(content: .header(file: index), file: weight.file, bytes: weight.headerBytes))
            for (number, tensor) in weight.tensors.enumerated() {
                parts.append(
                    Part(
                        content: .tensor(file: index, tensor: number), file: weight.file,
                        bytes: tensor.range.count))
            }
        }
        for (index, file) in manifest.files.enumerated() where !file.isWeights {
            parts.append(Part(content: .whole(file: index), file: file, bytes: file.bytes))
        }
        return parts
    }

    /// Distributes the parts over the ranks. Each rank gets a contiguous sequence, so that it reads few files
    /// from start to end. The shares have equal numbers of bytes, to within the size of one tensor.
    package func verificationParts(over ranks: Int) -> [[Part]] {
        precondition(ranks > 0, "\(ranks) ranks")
        var shares = [[Part]](repeating: [], count: ranks)
        let total = parts.reduce(0.0) { $0 + Double($1.bytes) }
        var before = 0.0
        for part in parts {
            let middle = before + Double(part.bytes) / 2
            before += Double(part.bytes)
            shares[min(ranks - 1, Int(middle / max(1, total) * Double(ranks)))].append(part)
        }
        return shares
    }

    /// Reads every byte and compares the checksums.
    package func verify() throws(CheckpointError) { try verify(parts) }

    /// Reads the files of one folder and compares their checksums.
    package func verify(folder: String) throws(CheckpointError) {
        try verify(parts.filter { $0.file.folder == folder })
    }

    /// Reads one part and compares its checksum.
    package func verify(_ part: Part) throws(CheckpointError) { try verify([part]) }

    /// Reads these parts and compares their checksums; throws at the first damaged one.
    package func verify(_ parts: [Part]) throws(CheckpointError) {
        try check(parts) { problem throws(CheckpointError) in throw problem }
    }

    /// All problems of the files, one error each.
    func damage() -> [CheckpointError] {
        var problems = structuralProblems()
        let broken = Set(problems.map(\.path))
        let rest = parts.filter { !broken.contains(at($0.file.path)) && !broken.contains(at($0.file.folder)) }
        check(rest) { problem in
            // Report a file that cannot be read only once.
            if problems.last != problem { problems.append(problem) }
        }
        return problems
    }

    /// Passes an error for each damaged part to `report`.
    private func check<Failure>(
        _ parts: [Part], _ report: (CheckpointError) throws(Failure) -> Void
    ) throws(Failure) {
        var reader: CheckpointReader?
        for part in parts {
            do throws(CheckpointError) {
                let path = at(part.file.path)
                if reader?.path != path { reader = try CheckpointReader(path, expected: part.file.bytes) }
                if let reader { try check(part, reader) }
            } catch {
                try report(error)
            }
        }
    }

    private func check(_ part: Part, _ reader: CheckpointReader) throws(CheckpointError) {
        func compare(_ what: String, _ found: CRC32C, _ expected: String) throws(CheckpointError) {
            guard found.text != expected else { return }
            throw CheckpointError(
                .damaged, reader.path,
                "\(what) has checksum \(found.text), expected \(expected); damaged on the disk?")
        }
        switch part.content {
        case .whole:
            try compare("the file", reader.checksum(of: 0..<part.bytes), part.file.crc32c)
        case .tensor(let file, let number):
            let tensor = weights[file].tensors[number]
            try compare(
                "tensor '\(tensor.entry.name)'", reader.checksum(of: tensor.range), tensor.checksum.text)
        case .header(let file):
            let header = try reader.read(0..<part.bytes)
            // The manifest has checksums of the whole file and of each tensor. Combining the tensors' with
            // the header's must give that of the file.
            let whole = weights[file].checksum(header: CRC32C.of(header))
            try compare("the file, computed from its header,", whole, part.file.crc32c)
            try weights[file].check(header: header, path: reader.path)
        }
    }
}
