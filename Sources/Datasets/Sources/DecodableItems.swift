import Communication
import Imaging
import Support
import TensorCore

/// A source with some items omitted.
struct PartialSource: ImageSource {
    private let base: any ImageSource
    private let items: [Int]
    private let omitted: [Int]

    /// - Parameter omitted: indices in ascending order.
    init(_ base: any ImageSource, without omitted: [Int]) {
        (self.base, self.omitted) = (base, omitted)
        let omitted = Set(omitted)
        items = (0..<base.count).filter { !omitted.contains($0) }
    }

    var name: String { base.name }
    var count: Int { items.count }
    var skipped: [String] { base.skipped }
    var content: SourceContent? { nil }
    var fingerprint: String { identify(base.fingerprint) }
    var sampledFingerprint: String { identify(base.sampledFingerprint) }
    func image(at index: Int) throws(ImageError) -> Image { try base.image(at: items[index]) }
    func itemName(at index: Int) -> String { base.itemName(at: items[index]) }
    func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        try base.size(at: items[index])
    }
    func label(at index: Int) throws(ImageError) -> String? { try base.label(at: items[index]) }

    private func identify(_ fingerprint: String) -> String {
        contentHash([fingerprint, "without"] + omitted.map(String.init))
    }
}

extension ImageSource {
    /// The source without the images that cannot be decoded. Each image is decoded once; each rank decodes a
    /// share. Collective.
    ///
    /// - Parameter note: called on rank 0 with a line that reports the number of omitted images.
    package func leavingOutUndecodable(
        on communicator: Communicator, note: (String) -> Void
    ) throws -> any ImageSource {
        let own = try communicator.collectively("decoding \(name)") {
            let items = Array(stride(from: communicator.rank, to: count, by: communicator.size))
            var reasons = [String?](repeating: nil, count: items.count)
            try reasons.withUnsafeMutableBufferPointer { reasons in
                let reasons = reasons
                try Processor.concurrently(items.count) { place in
                    do throws(ImageError) {
                        _ = try image(at: items[place])
                    } catch {
                        // A storage fault does not make an image bad.
                        if StorageFault.includes(error.code) { throw error }
                        reasons[place] = error.detail
                    }
                }
            }
            return zip(items, reasons).compactMap { index, reason in
                reason.map { ShardMaker.BadItem(index: index, item: itemName(at: index), reason: $0) }
            }
        }
        let bad = try communicator.allGather(own).flatMap { $0 }.sorted()
        guard let first = bad.first else { return self }
        if communicator.isRoot {
            let others = bad.count == 1 ? "" : ", and \(bad.count - 1) more"
            note("\(name): skipped \(bad.count) of \(count) images: \(first.item): \(first.reason)\(others)")
        }
        return PartialSource(self, without: bad.map(\.index))
    }

    /// Throws if images have different sizes. Collective; reads only headers.
    ///
    /// - Parameters:
    ///   - omitted: an item to ignore.
    ///   - option: the command-line option for the images, for errors.
    /// - Returns: the common size; nil if there are no images.
    package func commonSize(
        omitting omitted: String, option: String, on communicator: Communicator
    ) throws -> PictureSize? {
        let own = try communicator.collectively("reading the sizes of \(name)") {
            let items = stride(from: communicator.rank, to: count, by: communicator.size).filter {
                itemName(at: $0) != omitted
            }
            var found = [PictureSize?](repeating: nil, count: items.count)
            try found.withUnsafeMutableBufferPointer { found in
                let found = found
                try Processor.concurrently(items.count) { place in
                    let index = items[place]
                    // An item without a size is reported when it is decoded.
                    do throws(ImageError) {
                        found[place] = try size(at: index).map {
                            PictureSize(width: $0.width, height: $0.height, item: itemName(at: index))
                        }
                    } catch {
                        if StorageFault.includes(error.code) { throw error }
                    }
                }
            }
            return PictureSize.distinct(found.compactMap { $0 })
        }
        let sizes = PictureSize.distinct(try communicator.allGather(own).flatMap { $0 })
        guard sizes.count > 1 else { return sizes.first }
        let examples = sizes.prefix(3).map { "\($0.text) (\($0.item))" }.joined(separator: ", ")
        throw RunError(
            "\(option) \(name): images of \(sizes.count) sizes: \(examples)\(sizes.count > 3 ? ", …" : ""); expected one "
                + "size; give --size PIXELS to crop all of them to squares and resize them",
            exitStatus: ExitStatus.refused)
    }
}

/// A size, and an image of that size.
package struct PictureSize: Codable {
    package let width: Int
    package let height: Int
    let item: String

    var text: String { "\(width)x\(height)" }

    /// The first image of each size.
    static func distinct(_ sizes: [PictureSize]) -> [PictureSize] {
        var known: Set<[Int]> = []
        return sizes.filter { known.insert([$0.width, $0.height]).inserted }
    }
}
