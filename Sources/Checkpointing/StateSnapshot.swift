import Communication
import Foundation

/// A copy of the training state that a checkpoint is written from while training continues: the tensors that this rank
/// writes, whole. Its memory is allocated once, at the first save.
///
/// `@unchecked Sendable`: `capture` is only called while no thread reads the copy (`CheckpointWriter.begin` first
/// completes the previous save), and nothing else writes to it. Whoever reads the copy holds a reference to this
/// object, which owns the memory.
final class StateSnapshot: @unchecked Sendable {
    /// Stretches of flat buffers that hold this rank's tensors whole.
    private(set) var buffers: [StateBuffer] = []
    private let slices: FlatSlices
    /// The tensors that one rank writes and others have parts of: `range` is the part of rank `source`.
    private let borders: [(range: Range<Int>, source: Int, writer: Int)]
    private let memory: UnsafeMutablePointer<Float>

    /// - Parameter folders: of the buffers that `capture` will be given.
    init(_ table: TensorTable, folders: [String], rank: Int, of ranks: Int) {
        slices = FlatSlices(count: table.flatCount, ranks: ranks)
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

    /// Bytes that the copy takes on this rank.
    var byteCount: Int { buffers.reduce(0) { $0 + 4 * $1.range.count } }

    /// Whether it has room for these folders.
    func holds(_ folders: [String]) -> Bool { folders.allSatisfy { buffer(of: $0) != nil } }

    private func buffer(of folder: String) -> StateBuffer? { buffers.first { $0.folder == folder } }

    /// The copies of these folders, in this order. They are valid as long as this object is referenced.
    func buffers(of folders: [String]) -> [StateBuffer] {
        folders.map { folder in
            guard let copy = buffer(of: folder) else { preconditionFailure("no room for \(folder)") }
            return copy
        }
    }

    /// Copies the state of this moment, or a part of it. Collective: what lies beyond a shard's borders comes from its
    /// owner.
    func capture(_ state: [StateBuffer], _ communicator: any Communicator) throws(CommunicationError) {
        for (live, copy) in zip(state, buffers(of: state.map(\.folder))) {
            let common = copy.range.clamped(to: live.range)
            if !common.isEmpty {
                copy.pointer(common.lowerBound).update(
                    from: live.pointer(common.lowerBound), count: common.count)
            }
            // A whole state needs nobody's help, and every rank's is whole then.
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
    /// The place of a flat element, which must be of `range`.
    func pointer(_ element: Int) -> UnsafeMutablePointer<Float> { values + (element - range.lowerBound) }
}
