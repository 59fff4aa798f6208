import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

@Suite struct PrepareTests {
    @Test func pixelsRoundTripWithClasses() throws {
        let scratch = try ScratchFolder()
        try writeFaces(21, to: scratch.file("faces"), classes: 3)
        let summary = try prepareAlone(options(scratch.file("faces"), scratch.file("out")))
        #expect(summary.manifest.count == 21)
        #expect(summary.manifest.shards.count == 3)
        #expect(try scratch.list("out").contains("preview.png"))
        #expect(try Image.read(summary.preview).width == 4 + (5 * 18 + 2) + 4)

        let dataset = try openTrainingDataset(
            DataOptions(path: scratch.file("out"), imageSize: 16), firstStage: nil)
        #expect(hasShape(dataset, 16, 16, 3))
        #expect(dataset.classNames == ["class0", "class1", "class2"])
        let source = try openImageSource(scratch.file("faces"))
        let transform = ImageTransform(size: 16)
        for index in 0..<21 {
            let image = transform.apply(try source.image(at: index))
            #expect(try dataset.sample(index, key: firstKey) == image.floats())
            #expect(
                try dataset.sample(index, flipped: true, key: firstKey)
                    == image.flippedHorizontally().floats())
            #expect(dataset.label(index) == index / 7)
        }
        // The statistics must be those of the samples.
        let all = try (0..<21).flatMap { try dataset.sample($0, key: firstKey) }.map(Double.init)
        let mean = all.reduce(0, +) / Double(all.count)
        let std = (all.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(all.count)).squareRoot()
        #expect(abs(summary.manifest.statistics.mean - mean) < 1e-6)
        #expect(abs(summary.manifest.statistics.std - std) < 1e-6)
    }

    @Test func restartMakesOnlyWhatIsMissing() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"))
        let work = options("synthetic-faces:40:2", scratch.file("out"), firstStage: scratch.file("vae"))
        let whole = try prepareAlone(work)
        #expect(whole.manifest.shards.count == 5 && whole.reusedShards == 0)
        let names = whole.manifest.shards.map { scratch.file("out/\($0.name)") }
        let before = try names.map(bytes)

        // The state after a crash: no manifest, one shard missing, one truncated, one without a record, and
        // one partially written.
        for name in ["manifest.json", "shard-00000.safetensors", "progress/shard-00002.json"] {
            try FileManager.default.removeItem(atPath: scratch.file("out/\(name)"))
        }
        try truncate(names[1], by: 10)
        try Data([1, 2, 3]).write(to: URL(fileURLWithPath: names[2] + ".partial-1"))
        #expect(
            datasetError(.inaccessible) { _ = try PreparedFolder(scratch.file("out")) }.contains(
                "not finished"))

        let again = try prepareAlone(work)
        #expect(again.reusedShards == 2)
        #expect(try names.map(bytes) == before)
        #expect(try !scratch.list("out").contains { $0.contains("partial") })
        #expect(again.manifest.statistics == whole.manifest.statistics)

        let third = try prepareAlone(work)
        #expect(third.reusedShards == 5)
    }

    @Test func otherWorkInTheSameFolderIsRefused() throws {
        let scratch = try ScratchFolder()
        let work = options("synthetic-faces:10", scratch.file("out"))
        try prepareAlone(work)
        let size = datasetError(.mismatch) { try prepareAlone(options(work.source, work.output, size: 32)) }
        #expect(size.contains("--size was 16, now 32"))
        let source = datasetError(.mismatch) {
            try prepareAlone(options("synthetic-faces:10:9", work.output))
        }
        #expect(source.contains("source content"))
        // Also if the crash occurred before the manifest was written.
        try FileManager.default.removeItem(atPath: scratch.file("out/manifest.json"))
        #expect(
            datasetError(.mismatch) { try prepareAlone(options(work.source, work.output, size: 32)) }
                .contains("--size was 16, now 32"))
        // A folder with other content is not written to.
        try writeFaces(2, to: try scratch.makeFolder("photos"))
        let foreign = datasetError(.mismatch) {
            try prepareAlone(options(work.source, scratch.file("photos")))
        }
        #expect(foreign.contains("000.png"))
        #expect(try scratch.list("photos") == ["000.png", "001.png"])
    }

    @Test func badImagesAreNamedAndCounted() throws {
        let scratch = try ScratchFolder()
        let faces = try scratch.makeFolder("faces")
        try writeFaces(20, to: faces)
        try truncate("\(faces)/011.png", by: 40)
        try Data("hello".utf8).write(to: URL(fileURLWithPath: "\(faces)/017.png"))
        var work = options(faces, scratch.file("out"))

        let message = datasetError(.badImages) { try prepareAlone(work) }
        #expect(
            message.contains("011.png") && message.contains("2 such images") && message.contains("--skip-bad")
        )
        #expect(try !scratch.list("out").contains("manifest.json"))

        work.skipBad = true
        let summary = try prepareAlone(work)
        // Shards that were finished before the first bad image are kept.
        #expect(summary.reusedShards == 1)
        #expect(summary.manifest.count == 18)
        #expect(summary.manifest.shards.map(\.count) == [8, 7, 3])
        #expect(summary.manifest.skipped.map(\.item) == ["011.png", "017.png"])
        #expect(summary.text(output: work.output).contains("18 images of 16x16x3"))
        #expect(summary.text(output: work.output).contains("2 skipped"))

        // Samples after a gap have the right content.
        let dataset = try PixelDataset(PreparedFolder(work.output))
        let transform = ImageTransform(size: 16)
        for (index, item) in (0..<20).filter({ $0 != 11 && $0 != 17 }).enumerated() {
            let image = transform.apply(SyntheticFaces(seed: 1).draw(item, size: 24))
            #expect(try dataset.sample(index, key: firstKey) == image.floats())
        }

        // The skipped images were allowed then; without `skipBad` they are now an error.
        work.skipBad = false
        #expect(datasetError(.badImages) { try prepareAlone(work) }.contains("2 such images"))
    }

    @Test func aSetWithoutAnyGoodImageIsRefused() throws {
        let scratch = try ScratchFolder()
        let faces = try scratch.makeFolder("faces")
        try Data("hello".utf8).write(to: URL(fileURLWithPath: "\(faces)/a.png"))
        var work = options(faces, scratch.file("out"))
        work.skipBad = true
        #expect(datasetError(.badImages) { try prepareAlone(work) }.contains("none of 1 images"))
    }

    @Test func shardsFollowFromTheNumberOfImagesAlone() {
        func job(_ count: Int, size: Int = 64, kind: PrepareJob.Kind = .latents) -> PrepareJob {
            PrepareJob(
                kind: kind, sourceFingerprint: "", itemCount: count, imageSize: size, transform: "",
                firstStageHash: nil, flip: false, precision: nil)
        }
        for count in [1, 7, 8, 9, 38, 511, 512, 513, 5000, 16_385, 30_000, 50_000] {
            let job = job(count)
            let items = (0..<job.shardCount).flatMap { Array(job.items(ofShard: $0)) }
            #expect(items == Array(0..<count))
            #expect(job.shardSize <= 256)
            #expect(count < 256 || job.shardCount >= 32, "\(count) images make \(job.shardCount) shards")
        }
        #expect(job(30_000).shardSize == 256)
        #expect(job(30_000, size: 1024, kind: .pixels).shardSize == 40)
    }

    @Test func impossibleOptionsAreUsageErrors() throws {
        let scratch = try ScratchFolder()
        var work = options("synthetic-faces:4", scratch.file("out"))
        work.limit = 0
        #expect(datasetError(.usage) { try prepareAlone(work) }.contains("--limit 0"))
        work.limit = nil
        work.batch = 0
        #expect(datasetError(.usage) { try prepareAlone(work) }.contains("--batch 0"))
        #expect(DatasetError(.usage, "").exitStatus == 2 && DatasetError(.damaged, "").exitStatus == 3)
        #expect(
            datasetError { try prepareAlone(options("synthetic-faces:4:x", scratch.file("out"))) }
                .contains("is not a seed"))
        try writeAutoencoder(to: scratch.file("vae"))
        let odd = options("synthetic-faces:4", scratch.file("out"), firstStage: scratch.file("vae"), size: 17)
        #expect(datasetError(.mismatch) { try prepareAlone(odd) }.contains("multiples of 2"))
        let absent = options("synthetic-faces:4", scratch.file("out"), firstStage: scratch.file("nothing"))
        #expect(datasetError(.mismatch) { try prepareAlone(absent) }.contains("does not exist"))
        #expect(!FileManager.default.fileExists(atPath: scratch.file("out")))
    }

    @Test func limitTakesTheFirstImages() throws {
        let scratch = try ScratchFolder()
        var work = options("synthetic-faces:50", scratch.file("out"))
        work.limit = 5
        #expect(try prepareAlone(work).manifest.count == 5)
    }
}
