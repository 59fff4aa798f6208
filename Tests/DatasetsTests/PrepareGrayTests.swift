import Datasets
import Foundation
import Imaging
import LDMModel
import Support
import Testing
import TestSupport

@Suite struct PrepareGrayTests {
    /// The JSON of the first shard's record.
    private func job(_ folder: String) throws -> JSONValue {
        let record = try JSONValue(parsing: [UInt8](bytes("\(folder)/progress/shard-00000.json"))[...])
        return try #require(record["job"])
    }

    @Test func pixelsOfOneChannelAreTheLuma() throws {
        let scratch = try ScratchFolder()
        try writeFaces(9, to: scratch.makeFolder("faces"))
        var work = options(scratch.file("faces"), scratch.file("out"))
        work.channels = 1
        let manifest = try prepareAlone(work).manifest
        #expect(manifest.channels == 1 && manifest.job.channels == 1)
        #expect(try job(work.output)["channels"]?.intValue == 1)
        #expect(manifest.statistics.channels == 1)

        let prepared = try openTrainingDataset(DataOptions(path: work.output, imageSize: 16), firstStage: nil)
        let direct = try openTrainingDataset(
            DataOptions(path: work.source, imageSize: 16, channels: 1), firstStage: nil)
        #expect(hasShape(prepared, 16, 16, 1) && hasShape(direct, 16, 16, 1))
        let source = try openImageSource(work.source)
        for index in 0..<9 {
            let image = ImageTransform(size: 16, channels: 1).apply(try source.image(at: index))
            for dataset in [prepared, direct] {
                #expect(try dataset.sample(index, key: firstKey) == image.floats())
                #expect(
                    try dataset.sample(index, flipped: true, key: firstKey)
                        == image.flippedHorizontally().floats())
            }
        }
        #expect(try prepareAlone(work).reusedShards == manifest.shards.count)
    }

    /// Folders of earlier versions have no number of channels in their jobs, and must still be recognized.
    @Test func aJobOfThreeChannelsIsWrittenAsBefore() throws {
        let scratch = try ScratchFolder()
        let work = options("synthetic-faces:4", scratch.file("out"))
        try prepareAlone(work)
        let keys = try #require(try job(work.output).objectValue).keys
        #expect(
            keys == [
                "kind", "source_fingerprint", "items", "size", "transform", "first_stage_hash", "flip",
                "precision",
            ])
        var gray = work
        gray.channels = 1
        #expect(datasetError(.mismatch) { try prepareAlone(gray) }.contains("--channels was 3, now 1"))
    }

    @Test func aFirstStageOfOneChannelTakesLuma() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"), channels: 1)
        var work = options("synthetic-faces:9:5", scratch.file("out"), firstStage: scratch.file("vae"))
        let manifest = try prepareAlone(work).manifest
        #expect(manifest.channels == 2 && manifest.job.channels == 1)
        let stage = try FirstStage(folder: ModelFolder(scratch.file("vae")))
        let dataset = try openTrainingDataset(
            DataOptions(path: work.output, imageSize: 16, channels: 1), firstStage: stage)
        #expect(hasShape(dataset, 8, 8, 2))
        work.channels = 3
        #expect(datasetError(.mismatch) { try prepareAlone(work) }.contains("takes images of 1 channel"))
    }

    @Test func otherNumbersOfChannelsAreRefused() throws {
        let scratch = try ScratchFolder()
        var work = options("synthetic-faces:4", scratch.file("out"))
        work.channels = 2
        #expect(datasetError(.usage) { try prepareAlone(work) }.contains("--channels 2: expected 3, or 1"))
        work.channels = nil
        try writeAutoencoder(to: scratch.file("vae"), channels: 4)
        work.firstStage = scratch.file("vae")
        #expect(datasetError(.mismatch) { try prepareAlone(work) }.contains("images of 4 channels"))

        work.firstStage = nil
        try prepareAlone(work)
        let data = DataOptions(path: work.output, imageSize: 16, channels: 1)
        #expect(
            datasetError(.mismatch) { _ = try openTrainingDataset(data, firstStage: nil) }.contains(
                "was prepared from images of 3 channels, but data.channels is 1"))
        // A manifest whose shape contradicts its job.
        let path = scratch.file("out/manifest.json")
        let text = String(decoding: try bytes(path), as: UTF8.self)
        try text.replacingOccurrences(of: "\"precision\": null", with: "\"precision\": null, \"channels\": 1")
            .write(toFile: path, atomically: true, encoding: .utf8)
        #expect(
            datasetError(.damaged) { _ = try PreparedFolder(work.output) }.contains("contradict each other"))
    }
}
