import Foundation
import Imaging
import Support

// N: images, H, W: height and width, C: channels, 1 or 3.

/// Images stored as uncompressed bytes: NumPy arrays and CIFAR's batches. Each is read where it lies.
struct PixelArrays: ImageSource {
    /// Images of the same shape, one after the other.
    struct Block: Sendable {
        /// The name of the array, and for messages with its file.
        let name: String
        let path: String
        let pixels: Pixels
        let count: Int
        let height: Int
        let width: Int
        let channels: Int
        /// Whether an image is [C, H, W] rather than [H, W, C].
        let isPlanar: Bool
        /// Bytes in front of the pixels of each image that belong to it.
        var lead = 0
        var labels = Labels.none
        /// Whether an image is named by its index in the block.
        var isIndexed = true
        /// The index of its first image in the source.
        fileprivate(set) var first = 0

        var imageBytes: Int { height * width * channels }
        /// Bytes from one image to the next.
        fileprivate var stride: Int { lead + imageBytes }
    }

    enum Pixels: Sendable {
        /// From an offset in a file on.
        case volume(Volume, Int)
        case memory([UInt8])
    }

    enum Labels: Sendable {
        case none
        /// A byte of the lead.
        case byte(Int)
        case values([Int32])
    }

    let name: String
    let skipped: [String]
    let content: SourceContent?
    let count: Int
    let labelOrigin: LabelOrigin
    private let blocks: [Block]
    /// The names of the classes by their numbers; empty to use the numbers.
    private let classNames: [String]

    /// - Parameter labelOrigin: `.none` if the blocks have no labels.
    init(
        _ blocks: [Block], name: String, classNames: [String] = [], labelOrigin: LabelOrigin,
        skipped: [String] = []
    ) {
        var count = 0
        var numbered = blocks
        for index in numbered.indices {
            numbered[index].first = count
            count += numbered[index].count
        }
        let all = numbered
        (self.name, self.skipped, self.blocks, self.count) = (name, skipped, all, count)
        (self.classNames, self.labelOrigin) = (classNames, labelOrigin)
        content = SourceContent(
            count: count, name: { Self.itemName($0, in: all) },
            size: { all[Self.block(of: $0, in: all)].stride },
            read: { index, body throws(ImageError) in
                try Self.record(index, in: all).withUnsafeBytes { body($0) }
            })
    }

    func itemName(at index: Int) -> String { Self.itemName(index, in: blocks) }

    func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        let block = blocks[Self.block(of: index, in: blocks)]
        return (block.width, block.height)
    }

    func label(at index: Int) throws(ImageError) -> String? {
        let block = blocks[Self.block(of: index, in: blocks)]
        let number: Int
        switch block.labels {
        case .none: return nil
        case .byte(let at):
            let record = index - block.first
            switch block.pixels {
            case .volume(let volume, let start):
                number = Int(try volume.read(at: start + record * block.stride + at, count: 1)[0])
            case .memory(let bytes): number = Int(bytes[record * block.stride + at])
            }
        case .values(let values): number = Int(values[index - block.first])
        }
        if classNames.isEmpty { return String(number) }
        return classNames.indices.contains(number) ? classNames[number] : nil
    }

    func image(at index: Int) throws(ImageError) -> Image {
        let block = blocks[Self.block(of: index, in: blocks)]
        let record = try Self.record(index, in: blocks)
        if case .byte(let at) = block.labels, Int(record[at]) >= classNames.count {
            throw ImageError(
                .corrupt, name: "\(block.path)[\(index - block.first)]",
                "label \(record[at]); expected 0 to \(classNames.count - 1): not a CIFAR record")
        }
        guard min(block.height, block.width) >= Image.minimumSide else {
            throw ImageError(
                .tooSmall, name: "\(block.path)[\(index - block.first)]",
                "\(block.width)x\(block.height) pixels; expected at least \(Image.minimumSide) on each side")
        }
        return Self.image(record, block)
    }

    /// Converts a record to RGB: [lead, C, H, W] or [lead, H, W, C] to [H, W, 3].
    private static func image(_ record: [UInt8], _ block: Block) -> Image {
        let plane = block.height * block.width
        let pixels: [UInt8]
        if block.channels == 3, !block.isPlanar {
            pixels = Array(record[block.lead...])
        } else {
            pixels = [UInt8](unsafeUninitializedCapacity: 3 * plane) { pixels, count in
                for c in 0..<3 {
                    let from = block.lead + (block.channels == 3 ? c * plane : 0)
                    for index in 0..<plane { pixels[3 * index + c] = record[from + index] }
                }
                count = 3 * plane
            }
        }
        return Image(width: block.width, height: block.height, pixels: pixels)
    }

    private static func record(_ index: Int, in blocks: [Block]) throws(ImageError) -> [UInt8] {
        let block = blocks[block(of: index, in: blocks)]
        let start = (index - block.first) * block.stride
        switch block.pixels {
        case .volume(let volume, let offset):
            return try volume.read(at: offset + start, count: block.stride)
        case .memory(let bytes): return Array(bytes[start..<start + block.stride])
        }
    }

    /// Binary search for the last block that begins at or before an image.
    private static func block(of index: Int, in blocks: [Block]) -> Int {
        var (low, high) = (0, blocks.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if blocks[middle].first <= index { low = middle } else { high = middle }
        }
        return low
    }

    private static func itemName(_ index: Int, in blocks: [Block]) -> String {
        let block = blocks[block(of: index, in: blocks)]
        return block.isIndexed ? "\(block.name)[\(index - block.first)]" : block.name
    }
}
