import Support
import TensorCore

/// The difference between the values of two tensors.
package struct TensorDifference: Sendable, Equatable {
    package let name: String
    package let shape: [Int]
    /// Number of elements whose bits differ.
    package private(set) var differing = 0
    /// max |b − a|; infinite if a NaN or an infinity is compared with another value.
    package private(set) var largest = 0.0
    private var squaredDifference = 0.0
    private var squaredNorm = 0.0

    init(_ entry: TensorTable.Entry) { (name, shape) = (entry.name, entry.shape) }

    /// ‖b − a‖ / ‖a‖; infinite if a is 0 and b is not.
    package var relative: Double { Self.relative([self]) }

    fileprivate static func relative(_ tensors: [TensorDifference]) -> Double {
        let difference = tensors.reduce(0) { $0 + $1.squaredDifference }
        return difference == 0 ? 0 : (difference / tensors.reduce(0) { $0 + $1.squaredNorm }).squareRoot()
    }

    fileprivate mutating func add(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) {
        for index in a.indices {
            let before = Double(a[index])
            if a[index].bitPattern == b[index].bitPattern {
                if before.isFinite { squaredNorm += before * before }
                continue
            }
            differing += 1
            let distance = abs(Double(b[index]) - before)
            largest = max(largest, distance.isFinite ? distance : .infinity)
            squaredDifference += distance.isFinite ? distance * distance : .infinity
            squaredNorm += before.isFinite ? before * before : 0
        }
    }
}

/// The differences between one folder's tensors in two checkpoints, which are read in parallel, one chunk at
/// a time.
package struct FolderDifference: Sendable {
    package let folder: String
    /// Descriptions of the tensors that only one checkpoint has or whose shapes differ.
    package private(set) var unlike: [String] = []
    /// The tensors that both checkpoints have, in the order of the first.
    package private(set) var tensors: [TensorDifference] = []

    /// max |b − a| over all common tensors.
    package var largest: Double { tensors.map(\.largest).max() ?? 0 }
    /// ‖b − a‖ / ‖a‖ over all common tensors.
    package var relative: Double { TensorDifference.relative(tensors) }

    private static let pieceBytes = 1 << 20

    /// - Throws: if bytes do not match their checksums, since a comparison of damaged values is meaningless.
    package init(_ folder: String, _ a: Checkpoint, _ b: Checkpoint) throws(CheckpointError) {
        self.folder = folder
        let (ours, theirs) = (a.manifest.parameters.entries, b.manifest.parameters.entries)
        let others = Dictionary(uniqueKeysWithValues: theirs.map { ($0.name, $0) })
        let known = Set(ours.map(\.name))
        let (here, there) = (a.tensors(of: folder), b.tensors(of: folder))
        var readers: (a: CheckpointReader?, b: CheckpointReader?)
        for entry in ours {
            guard let other = others[entry.name] else {
                unlike.append("\(entry.name) is only in A")
                continue
            }
            guard other.shape == entry.shape else {
                unlike.append("\(entry.name) is \(entry.shape) in A, \(other.shape) in B")
                continue
            }
            let places = (a: try here.place(of: entry.name), b: try there.place(of: entry.name))
            let files = (
                a: try a.reader(of: places.a.file, reusing: readers.a),
                b: try b.reader(of: places.b.file, reusing: readers.b)
            )
            readers = (files.a, files.b)
            tensors.append(
                try Self.compare(entry, (files.a, places.a.tensor), (files.b, places.b.tensor)))
        }
        unlike += theirs.filter { !known.contains($0.name) }.map { "\($0.name) is only in B" }
    }

    private static func compare(
        _ entry: TensorTable.Entry, _ a: (file: CheckpointReader, tensor: WeightFile.Tensor),
        _ b: (file: CheckpointReader, tensor: WeightFile.Tensor)
    ) throws(CheckpointError) -> TensorDifference {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * pieceBytes, alignment: 64)
        defer { room.deallocate() }
        var difference = TensorDifference(entry)
        var sums = (a: CRC32C(), b: CRC32C())
        for start in stride(from: 0, to: entry.bytes, by: pieceBytes) {
            let count = min(pieceBytes, entry.bytes - start)
            let first = UnsafeMutableRawBufferPointer(rebasing: room[..<count])
            let second = UnsafeMutableRawBufferPointer(rebasing: room[pieceBytes..<pieceBytes + count])
            try a.file.read(at: a.tensor.range.lowerBound + start, into: first)
            try b.file.read(at: b.tensor.range.lowerBound + start, into: second)
            sums.a.update(UnsafeRawBufferPointer(first))
            sums.b.update(UnsafeRawBufferPointer(second))
            difference.add(
                UnsafeBufferPointer(first.bindMemory(to: Float.self)),
                UnsafeBufferPointer(second.bindMemory(to: Float.self)))
        }
        for (side, sum) in [(a, sums.a), (b, sums.b)] where sum != side.tensor.checksum {
            throw CheckpointError(
                .damaged, side.file.path,
                "tensor '\(entry.name)' has checksum \(sum.text), expected \(side.tensor.checksum.text); damaged on "
                    + "the disk?")
        }
        return difference
    }
}
