import Foundation
import RecordProtocols
import Records
import Testing
import TestSupport

@Suite struct RecordsTensorBoardTests {
    private func open(
        _ folder: String, resumedStep: Int? = nil, _ problems: RecordProblems = RecordProblems(),
        clock: @escaping () -> Double = { 1_234_567_890.5 }
    ) throws -> TensorBoardLog {
        try TensorBoardLog(
            folder: folder, resumedStep: resumedStep, host: "node1",
            onProblem: { problems.lines.append($0) }, clock: clock)
    }

    /// Text, two scalars and a histogram at each of the steps, a picture at the even ones.
    private func fill(_ log: TensorBoardLog, _ steps: ClosedRange<Int>) {
        for step in steps {
            log.append([("train/loss", 1 / Double(step)), ("seconds/total", 0.5)], step: step)
            log.append(histogram: [0, 0.5, 2], name: "norms", step: step)
            if step % 2 == 0 {
                log.append(picture: [UInt8(step), 2, 3], width: 4, height: 5, name: "samples", step: step)
            }
        }
    }

    /// Made by RecordWriter of tensorboard 2.21.0 from "tensorboard" and from nothing.
    @Test func recordsAreFramedAsTensorFlowDoes() {
        let golden =
            "0b000000000000008615f50474656e736f72626f61726459441694000000000000000029039807d8ea82a2"
        let bytes = TFRecord.frame(Array("tensorboard".utf8)) + TFRecord.frame([])
        #expect(bytes.map { String(format: "%02x", $0) }.joined() == golden)
    }

    @Test func eventsSayWhatTensorBoardExpects() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let log = try open(scratch.file("tensorboard"))
        log.append(text: "    seed: 0", name: "configuration", step: 0)
        fill(log, 2...2)
        let (events, areAll) = try RecordFiles.events(log.path)
        #expect(areAll)
        #expect(log.path.hasSuffix("/events.out.tfevents.1234567890.node1.disttrain"))
        #expect(events.map(\.step) == [0, 0, 2, 2, 2])
        #expect(events.allSatisfy { $0.wallTime == 1_234_567_890.5 })
        #expect(events[0].fileVersion == "brain.Event:2")
        let text = events[1].summary.value[0]
        #expect(text.metadata.pluginData.pluginName == "text")
        #expect(text.tensor.dtype == .dtString && text.tensor.stringVal == [Data("    seed: 0".utf8)])
        #expect(events[2].summary.value.map(\.tag) == ["train/loss", "seconds/total"])
        #expect(events[2].summary.value.map(\.simpleValue) == [0.5, 0.5])
        let histogram = events[3].summary.value[0].histo
        #expect((histogram.min, histogram.max, histogram.num) == (0, 2, 3))
        #expect((histogram.sum, histogram.sumSquares) == (2.5, 4.25))
        #expect(histogram.bucket.count == histogram.bucketLimit.count)
        for (value, index) in zip([0, 0.5, 2], histogram.bucket.indices.filter { histogram.bucket[$0] == 1 })
        {
            #expect(value <= histogram.bucketLimit[index])
            if index > 0 { #expect(value > histogram.bucketLimit[index - 1]) }
        }
        let image = events[4].summary.value[0].image
        #expect((image.width, image.height, image.colorspace) == (4, 5, 3))
        #expect(image.encodedImageString == Data([2, 2, 3]))
    }

    /// A crash may leave any part of the file.
    @Test func isCutBackWhereverItWasTorn() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = scratch.file("tensorboard")
        let log = try open(folder)
        log.append(text: "configuration", name: "configuration", step: 0)
        fill(log, 1...4)
        let whole = try RecordFiles.bytes(log.path)
        let throughTwo = try RecordFiles.events(log.path).events.prefix { $0.step <= 2 }
        for length in 0...whole.count {
            try RecordFiles.write(whole.prefix(length), to: log.path)
            let before = try RecordFiles.events(log.path).events.filter { $0.step <= 2 }
            let resumed = try open(folder, resumedStep: 2)
            #expect(resumed.path == log.path, "one file stays one file")
            resumed.append(text: "configuration", name: "configuration", step: 2)
            fill(resumed, 3...3)
            let (events, areAll) = try RecordFiles.events(log.path)
            #expect(areAll, "cut to \(length) bytes")
            #expect(events.map(\.step) == events.map(\.step).sorted())
            #expect(events.prefix(before.count) == before[...], "cut to \(length) bytes")
            if before.count == throughTwo.count {
                #expect(events.map(\.step) == [0, 0, 1, 1, 2, 2, 2, 3, 3], "the text is not there twice")
            }
        }
    }

    /// Whatever byte is damaged, what stands before it stays, and the file is whole again.
    @Test func damageEndsWhatIsKept() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = scratch.file("tensorboard")
        let log = try open(folder)
        fill(log, 1...2)
        let whole = try RecordFiles.bytes(log.path)
        for index in whole.indices {
            var damaged = whole
            damaged[index] ^= 0xFF
            try RecordFiles.write(damaged, to: log.path)
            fill(try open(folder, resumedStep: 2), 3...3)
            let (events, areAll) = try RecordFiles.events(log.path)
            #expect(areAll && events[0].fileVersion == "brain.Event:2", "byte \(index)")
            #expect(events.suffix(2).map(\.step) == [3, 3])
        }
        // A length that the file does not have, with the right checksum.
        var huge = TFRecord.frame([])
        huge.replaceSubrange(0..<12, with: [255, 255, 255, 255, 255, 255, 255, 255, 0xa6, 0x7b, 0x11, 0x3a])
        try RecordFiles.write(whole + huge, to: log.path)
        _ = try open(folder, resumedStep: 2)
        #expect(try RecordFiles.bytes(log.path) == whole)
    }

    @Test func aFreshStartBeginsAFileAndAPictureIsThereOnce() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = scratch.file("tensorboard")
        let old = try open(folder)
        fill(old, 1...4)
        try RecordFiles.write([1, 2], to: "\(folder)/events.out.tfevents.1.other")
        #expect(TensorBoardLog.exists(in: folder))
        let log = try open(folder, clock: { 1_300_000_000 })
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 2)
        #expect(try RecordFiles.events(log.path).events.map(\.step) == [0])
        fill(log, 1...2)
        // Resumed at a step whose picture was made, and again.
        for _ in 0..<2 {
            let resumed = try open(folder, resumedStep: 2)
            resumed.append(picture: [2, 2, 3], width: 4, height: 5, name: "samples", step: 2)
        }
        #expect(
            try RecordFiles.events(log.path).events.filter { $0.summary.value.first?.tag == "samples" }.count
                == 1
        )
        try TensorBoardLog.discard(in: folder)
        #expect(!TensorBoardLog.exists(in: folder))
    }
}
