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

#if canImport(Glibc)
    import Glibc
#endif

/// One memory region for the activations of tapes that run one after another. It grows while tapes are
/// planned and never shrinks; running a tape allocates nothing.
///
/// Tapes that share an arena overwrite each other's activations, so read a tape's results before the next
/// tape runs.
package final class Arena {
    /// Start of the region, aligned to a page (at least 64 bytes).
    package private(set) var base: UnsafeMutableRawPointer
    package private(set) var byteCount: Int

    package init() {
        byteCount = 0
        base = UnsafeMutableRawPointer(bitPattern: 64)!
    }

    /// Reserves at least `bytes`. The contents are lost when the region moves.
    func reserve(_ bytes: Int) {
        guard bytes > byteCount else { return }
        if byteCount > 0 { munmap(base, byteCount) }
        // Whole 2 MiB pages, so that the kernel can back the region with huge pages.
        let page = 1 << 21
        let rounded = (bytes + page - 1) / page * page
        let region = mmap(nil, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let region, region != MAP_FAILED else {
            fatalError("out of memory: \(rounded >> 20) MiB of activations; lower train.micro_batch_size")
        }
        madvise(region, rounded, MADV_HUGEPAGE)
        base = region
        byteCount = rounded
    }

    deinit {
        if byteCount > 0 { munmap(base, byteCount) }
    }
}
