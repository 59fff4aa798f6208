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
