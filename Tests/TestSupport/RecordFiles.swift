import Foundation
import RecordProtocols
import Records
import Support
import SwiftProtobuf

/// Support for tests of record files: lengths at which to truncate a file, and the records that a reader
/// finds in it.
package enum RecordFiles {
    package static func bytes(_ path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    package static func write(_ bytes: some Sequence<UInt8>, to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    /// All frames of a file, and whether they cover it completely.
    private static func frames(
        _ path: String, from start: Int,
        _ read: (AppendedFile, Int) throws -> (data: [UInt8], end: Int)?
    ) throws -> (frames: [[UInt8]], areAll: Bool) {
        let file = try AppendedFile(path: path, noun: "record") { _ in }
        var (found, at): ([[UInt8]], Int) = ([], start)
        while let frame = try read(file, at) {
            found.append(frame.data)
            at = frame.end
        }
        return (found, at == file.size)
    }

    package static func events(_ path: String) throws -> (events: [TBEvent], areAll: Bool) {
        let (found, areAll) = try frames(path, from: 0) { try TFRecord.read($0, at: $1) }
        return (try found.map { try TBEvent(serializedBytes: $0) }, areAll)
    }

    package static func wandb(_ path: String) throws -> (records: [WBRecord], areAll: Bool) {
        let (found, areAll) = try frames(path, from: WandBLogRecord.fileHeader.count) {
            try WandBLogRecord.read($0, at: $1)
        }
        return (try found.map { try WBRecord(serializedBytes: $0) }, areAll)
    }
}

/// Collects the problems that a record reports.
package final class RecordProblems {
    package var lines: [String] = []

    package init() {}
}

extension StepMetrics {
    package static func sample(_ step: Int, loss: Double = 0.5) -> StepMetrics {
        StepMetrics(
            step: step, loss: loss, learningRate: 2e-4, gradientNorm: 1.25, imagesPerSecond: 80,
            dataSeconds: 0.01, computeSeconds: 0.5, communicationSeconds: 0.1, totalSeconds: 0.7, epoch: 0.25,
            samplesSeen: step * 64, parts: [("kl", 0.125)],
            blockNorms: [("conv_in", 0.5), ("down_blocks.0", 1)])
    }
}
