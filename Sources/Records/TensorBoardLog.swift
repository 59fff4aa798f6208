import Foundation
import Imaging
import RecordProtocols
import Support
import SwiftProtobuf

/// Writes the event file that TensorBoard displays: scalars, images, text and histograms over the steps. For
/// one rank.
///
/// A run has one file, even if it is resumed: events later than the resumed step are removed and new ones
/// appended. Events are in the order of their steps.
package final class TensorBoardLog {
    package var path: String { file.path }

    private let file: AppendedFile
    private let clock: () -> Double
    /// The last text of each name and the last step of each picture in the file, to avoid duplicates after a
    /// resume.
    private var texts: [String: String] = [:]
    private var pictures: [String: Int] = [:]

    /// The format version, stored in the first event.
    private static let version = "brain.Event:2"
    private static let suffix = ".disttrain"

    /// Opens the folder's event file and truncates it to the step that the run resumes from, or creates one.
    ///
    /// - Parameters:
    ///   - resumedStep: the step of the loaded checkpoint; nil starts a new file.
    ///   - onProblem: called when events cannot be written; once per series of failures.
    ///   - clock: seconds since 1970.
    package init(
        folder: String, resumedStep: Int?, host: String, onProblem: @escaping (String) -> Void,
        clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
    ) throws(FileError) {
        self.clock = clock
        if resumedStep == nil { try Self.discard(in: folder) }
        try makeFolder(folder)
        // TensorBoard reads every file with "tfevents" in its name, in the order of the names: by time, then
        // by host.
        let name = "events.out.tfevents.\(Int(clock())).\(host)\(Self.suffix)"
        let path = Self.files(in: folder).last ?? "\(folder)/\(name)"
        file = try AppendedFile(path: path, noun: "event", onProblem: onProblem)
        try file.cut(to: try keptPrefix(through: resumedStep ?? -1))
        if file.size == 0 { append(step: 0) { $0.fileVersion = Self.version } }
        try AtomicFile.synchronizeFolder(of: path)
    }

    /// Whether the folder has an event file to continue.
    package static func exists(in folder: String) -> Bool { !files(in: folder).isEmpty }

    /// Removes the files of an earlier start that ended before its first checkpoint.
    package static func discard(in folder: String) throws(FileError) {
        for file in files(in: folder) where unlink(file) != 0 {
            throw FileError(file, "cannot be removed: \(systemReason())", code: errno)
        }
    }

    /// The event files written by this program, sorted by name; the folder may contain files of other
    /// programs.
    private static func files(in folder: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasPrefix("events.out.tfevents.") && $0.hasSuffix(suffix) }.sorted()
            .map { "\(folder)/\($0)" }
    }

    // MARK: Events

    /// Appends scalars at a step. A slash in a name groups the charts.
    package func append(_ scalars: [(name: String, value: Double)], step: Int) {
        append(
            scalars.map { scalar in
                TBSummary.Value.with {
                    $0.tag = scalar.name
                    $0.simpleValue = Float(scalar.value)
                }
            }, step: step)
    }

    /// Appends a histogram of values at one step.
    package func append(histogram values: [Double], name: String, step: Int) {
        append(
            [
                TBSummary.Value.with {
                    $0.tag = name
                    $0.histo = TBHistogramProto(values)
                }
            ], step: step)
    }

    /// Appends a PNG image.
    package func append(picture png: [UInt8], width: Int, height: Int, name: String, step: Int) {
        if pictures[name] == step { return }
        pictures[name] = step
        append(
            [
                TBSummary.Value.with {
                    $0.tag = name
                    $0.image = TBSummary.Image.with {
                        ($0.width, $0.height) = (Int32(width), Int32(height))
                        // The color type in the PNG's header, 0 for grayscale; here 1 is grayscale, 3 is RGB.
                        $0.colorspace = png.count > 25 && png[25] == 0 ? 1 : 3
                        $0.encodedImageString = Data(png)
                    }
                }
            ], step: step)
    }

    /// Appends Markdown text, unless it equals the last text of that name.
    package func append(text markdown: String, name: String, step: Int) {
        if texts[name] == markdown { return }
        texts[name] = markdown
        append(
            [
                TBSummary.Value.with {
                    $0.tag = name
                    $0.metadata.pluginData.pluginName = "text"
                    $0.tensor = TBTensorProto.with {
                        $0.dtype = .dtString
                        $0.tensorShape.dim = [TBTensorShapeProto.Dim.with { $0.size = 1 }]
                        $0.stringVal = [Data(markdown.utf8)]
                    }
                }
            ], step: step)
    }

    /// Flushes all events to the disk; a failure is reported.
    package func synchronize() { file.synchronize() }

    private func append(_ values: [TBSummary.Value], step: Int) {
        append(step: step) { $0.summary.value = values }
    }

    private func append(step: Int, _ fill: (inout TBEvent) -> Void) {
        var event = TBEvent()
        event.wallTime = clock()
        event.step = Int64(step)
        fill(&event)
        do {
            file.append(TFRecord.frame(try event.serializedBytes()))
        } catch {
            file.lose("\(error)")
        }
    }

    // MARK: Truncation on resume

    /// Length in bytes of the events to keep: all before the first event that is later than `step` or
    /// unreadable.
    private func keptPrefix(through step: Int) throws(FileError) -> Int {
        var kept = 0
        while let record = try TFRecord.read(file, at: kept),
            let event = try? TBEvent(serializedBytes: record.data)
        {
            if kept == 0, event.fileVersion != Self.version { break }
            if event.step > step { break }
            for value in event.summary.value {
                switch value.value {
                case .image: pictures[value.tag] = Int(event.step)
                case .tensor(let tensor):
                    texts[value.tag] = tensor.stringVal.first.map { String(decoding: $0, as: UTF8.self) }
                default: break
                }
            }
            kept = record.end
        }
        return kept
    }
}

extension TBHistogramProto {
    /// Builds buckets whose limits grow by 10 %, as TensorFlow's do. Values must be 0 or more.
    init(_ values: [Double]) {
        self.init()
        (min, max) = (values.min() ?? 0, values.max() ?? 0)
        num = Double(values.count)
        sum = values.reduce(0, +)
        sumSquares = values.reduce(0) { $0 + $1 * $1 }
        let places = values.map(Self.place)
        guard let first = places.min(), let last = places.max() else { return }
        // Begin with an empty bucket, since the lower limit of a bucket is the upper limit of the previous
        // one.
        for place in Swift.max(0, first - 1)...last {
            bucketLimit.append(Self.least * pow(Self.growth, Double(place)))
            bucket.append(Double(places.count { $0 == place }))
        }
    }

    private static let least = 1e-12
    private static let growth = 1.1

    /// The index of the value's bucket; values above 1e20 are counted in the last one.
    private static func place(_ value: Double) -> Int {
        guard value > least else { return 0 }
        return Int((log(Swift.min(value, 1e20) / least) / log(growth)).rounded(.up))
    }
}

/// The framing of TensorFlow's record files: length (8 bytes), masked CRC-32C of the length (4), data, masked
/// CRC-32C of the data (4); all integers are little-endian.
///
/// Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.
package enum TFRecord {
    private static let headerSize = 12

    package static func frame(_ data: [UInt8]) -> [UInt8] {
        let length = littleEndian(UInt64(data.count))
        return length + littleEndian(maskedChecksum(length)) + data + littleEndian(maskedChecksum(data))
    }

    /// Reads the record that begins at `offset`.
    ///
    /// - Returns: the data and the offset after the record; nil at the end of the file, or if the record is
    ///   truncated or damaged.
    package static func read(
        _ file: AppendedFile, at offset: Int
    ) throws(FileError) -> (data: [UInt8], end: Int)? {
        let header = try file.read(at: offset, count: headerSize)
        guard header.count == headerSize, checksum(of: header, at: 8) == maskedChecksum(Array(header[..<8]))
        else { return nil }
        let length: UInt64 = integer(header, at: 0)
        // Check the length before allocating that many bytes.
        guard length <= UInt64(max(0, file.size - offset - headerSize - 4)) else { return nil }
        let count = Int(length)
        let body = try file.read(at: offset + headerSize, count: count + 4)
        let data = Array(body[..<count])
        guard checksum(of: body, at: count) == maskedChecksum(data) else { return nil }
        return (data, offset + headerSize + count + 4)
    }

    /// Checksums are stored rotated and with a constant added, because the CRC of data that contains its own
    /// CRCs is weak.
    private static func maskedChecksum(_ bytes: [UInt8]) -> UInt32 {
        let crc = CRC32C.of(bytes).value
        return (crc >> 15 | crc << 17) &+ 0xA282_EAD8
    }

    private static func checksum(of bytes: [UInt8], at offset: Int) -> UInt32 { integer(bytes, at: offset) }
}

/// The bytes of an integer in little-endian order.
func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// The little-endian integer at `offset`.
func integer<T: FixedWidthInteger>(_ bytes: [UInt8], at offset: Int) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
}
