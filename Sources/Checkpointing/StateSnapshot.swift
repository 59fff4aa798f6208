import Communication
import Foundation

/// A copy of the training state from which a checkpoint is written while training continues. It contains the
/// tensors that this rank writes, completely. The memory is allocated once, at the first save.
///
/// Invariant for `@unchecked Sendable`: `capture` is only called while no thread reads the copy
/// (`CheckpointWriter.begin` first completes the previous save), and nothing else writes to it. Every reader
/// of the copy holds a reference to this object, which owns the memory.
final class StateSnapshot: @unchecked Sendable {
    /// Contiguous ranges of the flat buffers that contain this rank's tensors completely.
    private(set) var buffers: [StateBuffer] = []
    private let slices: ShardLayout
    /// Ranges of the tensors written by rank `writer` that lie in the slice of rank `source`.
    private let borders: [(range: Range<Int>, source: Int, writer: Int)]
    private let memory: UnsafeMutablePointer<Float>

    /// - Parameter folders: the folders of the buffers that will be passed to `capture`.
    init(_ table: TensorTable, folders: [String], rank: Int, of ranks: Int) {
        slices = ShardLayout(count: table.flatCount, ranks: ranks)
        let parts = table.partition(over: ranks)
        var borders: [(range: Range<Int>, source: Int, writer: Int)] = []
        for (writer, entries) in parts.enumerated() {
            guard let first = entries.first, let last = entries.last else { continue }
            for source in 0..<ranks where source != writer {
                let range = (first.offset..<last.offset + last.count).clamped(to: slices[source])
                if !range.isEmpty { borders.append((range, source, writer)) }
            }
        }
        self.borders = borders
        let own = parts[rank]
        let range = own.isEmpty ? 0..<0 : own[0].offset..<own.last!.offset + own.last!.count
        memory = .allocate(capacity: max(1, range.count * folders.count))
        buffers = folders.enumerated().map { index, folder in
            StateBuffer(folder, memory + index * range.count, range)
        }
    }

    deinit { memory.deallocate() }

    /// Size of the copy on this rank, in bytes.
    var byteCount: Int { buffers.reduce(0) { $0 + 4 * $1.range.count } }

    /// Whether the copy has room for these folders.
    func holds(_ folders: [String]) -> Bool { folders.allSatisfy { buffer(of: $0) != nil } }

    private func buffer(of folder: String) -> StateBuffer? { buffers.first { $0.folder == folder } }

    /// The copies of these folders, in the given order. They are valid as long as this object is referenced.
    func buffers(of folders: [String]) -> [StateBuffer] {
        folders.map { folder in
            guard let copy = buffer(of: folder) else { preconditionFailure("no room for \(folder)") }
            return copy
        }
    }

    /// Copies the current state or a part of it. Collective: the parts outside this rank's slice are received
    /// from their owners.
    func capture(_ state: [StateBuffer], _ communicator: Communicator) throws(CommunicationError) {
        for (live, copy) in zip(state, buffers(of: state.map(\.folder))) {
            let common = copy.range.clamped(to: live.range)
            if !common.isEmpty {
                copy.pointer(common.lowerBound).update(
                    from: live.pointer(common.lowerBound), count: common.count)
            }
            // If the state is not sharded, every rank has all of it and nothing has to be exchanged.
            if live.range.count == slices.count { continue }
            for border in borders {
                let bytes = 4 * border.range.count
                if communicator.rank == border.source {
                    try communicator.send(
                        UnsafeRawBufferPointer(start: live.pointer(border.range.lowerBound), count: bytes),
                        to: border.writer, tag: 1)
                } else if communicator.rank == border.writer {
                    try communicator.receive(
                        UnsafeMutableRawBufferPointer(
                            start: copy.pointer(border.range.lowerBound), count: bytes), from: border.source,
                        tag: 1)
                }
            }
        }
    }
}

extension StateBuffer {
    /// A pointer to an element of the flat buffer, which must be in `range`.
    func pointer(_ element: Int) -> UnsafeMutablePointer<Float> { values + (element - range.lowerBound) }
}
