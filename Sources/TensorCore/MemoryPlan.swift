/// Assigns each storage an offset in an arena, based on its lifetime.
enum MemoryPlan {
    /// Assigns an offset to every storage that the instructions touch.
    ///
    /// An output reuses the memory of its input if the instruction allows it and nothing reads the input
    /// later. The remaining storages are placed greedily, largest first, each at the lowest offset that is
    /// free over its whole lifetime (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    /// Inference", 2020).
    ///
    /// - Returns: the size of the plan in bytes.
    /// - Complexity: O(n²) in the number of storages, once per tape.
    static func assign(_ instructions: [Tape.Instruction], pinned: [Storage], arena: Arena) -> Int {
        let kept = Set(pinned.map(ObjectIdentifier.init))
        for (index, instruction) in instructions.enumerated() {
            guard let (output, input) = instruction.inPlace, input !== output else { continue }
            let root = input.root
            guard output.inPlaceOf == nil, output.firstUse == index, root.lastUse == index,
                output.byteCount <= root.byteCount, root !== output,
                !kept.contains(ObjectIdentifier(root)), !kept.contains(ObjectIdentifier(input))
            else { continue }
            output.inPlaceOf = root
            root.lastUse = max(root.lastUse, output.lastUse)
        }

        var seen = Set<ObjectIdentifier>()
        var all: [Storage] = []
        for storage in pinned + instructions.flatMap({ $0.reads + $0.writes })
        where seen.insert(ObjectIdentifier(storage)).inserted {
            all.append(storage)
        }
        let roots = all.filter { $0.inPlaceOf == nil }
        let order = roots.indices.sorted {
            (roots[$0].byteCount, $1) > (roots[$1].byteCount, $0)
        }

        struct Placed { var offset: Int, end: Int, first: Int, last: Int }
        var placed: [Placed] = []  // by offset
        var offsets: [ObjectIdentifier: Int] = [:]
        var total = 0
        for index in order {
            let storage = roots[index]
            let size = (storage.byteCount + 63) & ~63
            var offset = 0
            for other in placed where other.first <= storage.lastUse && storage.firstUse <= other.last {
                if offset + size <= other.offset { break }
                offset = max(offset, other.end)
            }
            storage.place(in: arena, at: offset)
            let entry = Placed(
                offset: offset, end: offset + size, first: storage.firstUse, last: storage.lastUse)
            let position = placed.firstIndex { $0.offset > offset } ?? placed.count
            placed.insert(entry, at: position)
            total = max(total, entry.end)
            offsets[ObjectIdentifier(storage)] = offset
        }
        for storage in all where storage.inPlaceOf != nil {
            storage.place(in: arena, at: offsets[ObjectIdentifier(storage.root)]!)
        }
        return total
    }
}
