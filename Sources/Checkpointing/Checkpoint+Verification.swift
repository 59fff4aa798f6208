import Support

/// Verification in parts, so that ranks can share it: a tensor, the header of a weight file, or a small file. All parts
/// together are every byte of the checkpoint but the manifest, which opening has verified.
extension Checkpoint {
    /// What can be verified by itself.
    package struct Part: Sendable, Equatable {
        enum Content: Sendable, Equatable {
            /// Of weight file [file]: all before its tensors.
            case header(file: Int)
            /// Tensor [tensor] of weight file [file].
            case tensor(file: Int, tensor: Int)
            /// File [file] of the manifest.
            case whole(file: Int)
        }

        let content: Content
        /// In the checkpoint.
        let file: CheckpointFile
        /// How many have to be read.
        package let bytes: Int

        var isTensor: Bool {
            if case .tensor = content { return true }
            return false
        }
    }

    /// All parts, in the order of files and of bytes within.
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

    /// The parts in as many runs as there are ranks, each of about the same number of bytes: to within one tensor. A
    /// run is of neighbours, so that each rank reads few files from start to end.
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

    /// Reads these parts and compares their checksums; throws at the first that is damaged.
    package func verify(_ parts: [Part]) throws(CheckpointError) {
        try check(parts) { problem throws(CheckpointError) in throw problem }
    }

    /// Everything that is wrong with the files, an error each.
    func damage() -> [CheckpointError] {
        var problems = structuralProblems()
        let broken = Set(problems.map(\.path))
        let rest = parts.filter { !broken.contains(at($0.file.path)) && !broken.contains(at($0.file.folder)) }
        check(rest) { problem in
            // A file that cannot be read is told once.
            if problems.last != problem { problems.append(problem) }
        }
        return problems
    }

    /// Tells `report` of each part that is damaged.
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
            // The manifest has the sum of the whole file and of each tensor; what is left is the header's.
            let whole = weights[file].checksum(header: CRC32C.of(header))
            try compare("the file, by its header,", whole, part.file.crc32c)
            try weights[file].check(header: header, path: reader.path)
        }
    }
}
