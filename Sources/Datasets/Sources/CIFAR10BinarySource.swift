import Foundation
import Imaging

/// CIFAR-10 in its binary version: a folder with `data_batch_1.bin` to `data_batch_5.bin`.
///
/// Each record has 3073 bytes: the label, then 32x32 red, green and blue values, plane by plane in row-major
/// order.
/// Source: https://www.cs.toronto.edu/~kriz/cifar.html
package struct CIFAR10BinarySource: ImageSource {
    package static let side = 32
    private static let recordSize = 1 + 3 * side * side

    package let name: String
    package let content: SourceContent?
    package let count: Int
    private let batches: [Batch]

    private typealias Batch = (file: ReadOnlyFile, name: String, first: Int)
    private let labels: [String]

    /// - Parameter includeTest: also use the records of `test_batch.bin`; they are always used if there are
    ///   no others.
    package init(_ folder: String, includeTest: Bool = false) throws(ImageError) {
        let found = Self.batchNames(folder)
        let training = found.filter { $0.hasPrefix("data_batch_") }
        let names = includeTest || training.isEmpty ? found : training
        var batches: [Batch] = []
        var count = 0
        for name in names {
            let file = try ReadOnlyFile("\(folder)/\(name)")
            guard file.size > 0, file.size % Self.recordSize == 0 else {
                throw ImageError(
                    .badArchive, name: file.name,
                    "\(file.size) bytes; expected a multiple of \(Self.recordSize) (10000 records are 30730000 bytes): "
                        + "it is truncated or not a CIFAR-10 batch")
            }
            batches.append((file, name, count))
            count += file.size / Self.recordSize
        }
        guard count > 0 else {
            throw ImageError(.empty, name: folder, "no CIFAR-10 batches; expected data_batch_1.bin and so on")
        }
        name = folder
        self.batches = batches
        self.count = count
        labels = Self.labelNames(folder)
        let all = batches
        content = SourceContent(
            count: count, name: { Self.itemName($0, in: all) }, size: { _ in Self.recordSize },
            read: { index, body throws(ImageError) in
                let record = try Self.record(index, in: all)
                record.withUnsafeBytes { body($0) }
            })
    }

    /// Whether the folder contains CIFAR-10 batches.
    package static func recognizes(_ folder: String) -> Bool { !batchNames(folder).isEmpty }

    package func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        (Self.side, Self.side)
    }

    package func itemName(at index: Int) -> String { Self.itemName(index, in: batches) }

    package func label(at index: Int) -> String? {
        guard let label = try? Self.record(index, in: batches)[0], Int(label) < labels.count else {
            return nil
        }
        return labels[Int(label)]
    }

    package func image(at index: Int) throws(ImageError) -> Image {
        let record = try Self.record(index, in: batches)
        guard record[0] < 10 else {
            throw ImageError(
                .corrupt, name: itemName(at: index),
                "label \(record[0]); expected 0 to 9: not a CIFAR-10 record"
            )
        }
        let plane = Self.side * Self.side
        var pixels = [UInt8](repeating: 0, count: 3 * plane)
        for index in 0..<plane {
            for c in 0..<3 { pixels[3 * index + c] = record[1 + c * plane + index] }
        }
        return Image(width: Self.side, height: Self.side, pixels: pixels)
    }

    /// The batch files, in order.
    private static func batchNames(_ folder: String) -> [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return files.filter {
            $0.hasSuffix(".bin") && ($0.hasPrefix("data_batch_") || $0 == "test_batch.bin")
        }
        .sorted(by: ItemNames.precedes)
    }

    /// The class names in the folder, or the standard ones.
    private static func labelNames(_ folder: String) -> [String] {
        let standard = [
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
        ]
        guard let bytes = try? ReadOnlyFile("\(folder)/batches.meta.txt").readAll(limit: 1 << 16) else {
            return standard
        }
        let names = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init)
        return names.count == standard.count ? names : standard
    }

    private static func batch(
        of index: Int, in batches: [Batch]
    ) -> Batch {
        batches.last { $0.first <= index } ?? batches[0]
    }

    private static func itemName(
        _ index: Int, in batches: [Batch]
    ) -> String {
        let batch = batch(of: index, in: batches)
        return "\(batch.name)[\(index - batch.first)]"
    }

    private static func record(
        _ index: Int, in batches: [Batch]
    ) throws(ImageError) -> [UInt8] {
        let batch = batch(of: index, in: batches)
        return try batch.file.read(at: (index - batch.first) * recordSize, count: recordSize)
    }
}
