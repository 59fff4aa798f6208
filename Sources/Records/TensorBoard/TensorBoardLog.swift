import Foundation
import Imaging
import RecordProtocols
import Support
import SwiftProtobuf

/// Writes the event file that TensorBoard shows: scalars, pictures, text and histograms over the steps. For one rank.
///
/// A run has one file, also when it is resumed: what is later than the resumed step is cut off, and events are appended.
/// Events lie in the order of their steps.
package final class TensorBoardLog {
    package var path: String { file.path }

    private let file: AppendedFile
    private let clock: () -> Double
    /// What the file holds last of each text and picture, so that none is there twice after a resume.
    private var texts: [String: String] = [:]
    private var pictures: [String: Int] = [:]

    /// The version of the format, in the first event.
    private static let version = "brain.Event:2"
    private static let suffix = ".disttrain"

    /// Opens the folder's file, cut back to where the run goes on, or makes one.
    ///
    /// - Parameters:
    ///   - resumedStep: the step of the checkpoint that was loaded; nil starts a file anew.
    ///   - onProblem: told of events that could not be written, once a series.
    ///   - clock: seconds since 1970.
    package init(
        folder: String, resumedStep: Int?, host: String, onProblem: @escaping (String) -> Void,
        clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
    ) throws(FileError) {
        self.clock = clock
        if resumedStep == nil { try Self.discard(in: folder) }
        try makeFolder(folder)
        // A reader takes every file with "tfevents" in its name, in the order of names: time, then place.
        let name = "events.out.tfevents.\(Int(clock())).\(host)\(Self.suffix)"
        let path = Self.files(in: folder).last ?? "\(folder)/\(name)"
        file = try AppendedFile(path: path, noun: "event", onProblem: onProblem)
        try file.cut(to: try keptPrefix(through: resumedStep ?? -1))
        if file.size == 0 { append(step: 0) { $0.fileVersion = Self.version } }
        try AtomicFile.synchronizeFolder(of: path)
    }

    /// Whether there is a file to go on with.
    package static func exists(in folder: String) -> Bool { !files(in: folder).isEmpty }

    /// Removes what a start that came to no checkpoint left behind.
    package static func discard(in folder: String) throws(FileError) {
        for file in files(in: folder) where unlink(file) != 0 {
            throw FileError(file, "cannot be removed: \(systemReason())", code: errno)
        }
    }

    /// This program's files, in the order of their names; others may lie beside them.
    private static func files(in folder: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasPrefix("events.out.tfevents.") && $0.hasSuffix(suffix) }.sorted()
            .map { "\(folder)/\($0)" }
    }

    // MARK: Events

    /// Numbers at a step. A slash in a name makes a group.
    package func append(_ scalars: [(name: String, value: Double)], step: Int) {
        append(
            scalars.map { scalar in
                TBSummary.Value.with {
                    $0.tag = scalar.name
                    $0.simpleValue = Float(scalar.value)
                }
            }, step: step)
    }

    /// How values of one step are spread.
    package func append(histogram values: [Double], name: String, step: Int) {
        append(
            [
                TBSummary.Value.with {
                    $0.tag = name
                    $0.histo = TBHistogramProto(values)
                }
            ], step: step)
    }

    /// A PNG file.
    package func append(picture png: [UInt8], width: Int, height: Int, name: String, step: Int) {
        if pictures[name] == step { return }
        pictures[name] = step
        append(
            [
                TBSummary.Value.with {
                    $0.tag = name
                    $0.image = TBSummary.Image.with {
                        ($0.width, $0.height, $0.colorspace) = (Int32(width), Int32(height), 3)
                        $0.encodedImageString = Data(png)
                    }
                }
            ], step: step)
    }

    /// Markdown, where it is another than before.
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

    /// Waits until all events are on the disk.
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

    // MARK: Cutting back

    /// Length in bytes of the events to keep: all before the first of a later step, and before what cannot be read.
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
    /// In buckets that grow by a tenth, as TensorFlow's; values are 0 or more.
    init(_ values: [Double]) {
        self.init()
        (min, max) = (values.min() ?? 0, values.max() ?? 0)
        num = Double(values.count)
        sum = values.reduce(0, +)
        sumSquares = values.reduce(0) { $0 + $1 * $1 }
        let places = values.map(Self.place)
        guard let first = places.min(), let last = places.max() else { return }
        // With an empty bucket below, since a bucket begins where the one before it ends.
        for place in Swift.max(0, first - 1)...last {
            bucketLimit.append(Self.least * pow(Self.growth, Double(place)))
            bucket.append(Double(places.count { $0 == place }))
        }
    }

    private static let least = 1e-12
    private static let growth = 1.1

    /// The number of the bucket that a value lies in; values beyond 1e20 share the last.
    private static func place(_ value: Double) -> Int {
        guard value > least else { return 0 }
        return Int((log(Swift.min(value, 1e20) / least) / log(growth)).rounded(.up))
    }
}
