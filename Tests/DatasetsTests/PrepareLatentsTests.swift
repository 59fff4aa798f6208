import Datasets
import Foundation
import Imaging
import LDMModel
import TensorCore
import Testing
import TestSupport

@Suite struct PrepareLatentsTests {
    /// z = mean + exp(logvar / 2)·noise, minus the shift, times the scaling factor, computed from the
    /// encoder's output.
    @Test(arguments: [false, true])
    func samplesFollowThePosterior(storesFlipped: Bool) throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"), scalingFactor: 0.7)
        var work = options("synthetic-faces:11:5", scratch.file("out"), firstStage: scratch.file("vae"))
        work.flip = storesFlipped
        let summary = try prepareAlone(work)
        #expect(summary.manifest.hasPosterior && summary.manifest.job.flip == storesFlipped)

        let firstStage = try FirstStage(folder: ModelFolder(scratch.file("vae")))
        let dataset = try openTrainingDataset(
            DataOptions(path: work.output, imageSize: 16), firstStage: firstStage)
        #expect(dataset.count == 11 && hasShape(dataset, 8, 8, 2))
        for (index, flipped) in [(0, false), (9, true)] {
            let image = SyntheticFaces(seed: 5).draw(index, size: 16)
            let encoded = try encode(
                flipped && storesFlipped ? image.flippedHorizontally() : image, firstStage)
            let key = SampleKey(seed: 3, step: 17, sample: UInt64(index))
            var noise = CounterRandom(seed: 3, purpose: .posterior, step: 17, sample: UInt64(index))
            let sample = try dataset.sample(index, flipped: flipped, key: key)
            for i in sample.indices {
                let (y, x, c) = (i / 16, i / 2 % 8, i % 2)
                let from = flipped && !storesFlipped ? (y * 8 + 7 - x) * 2 + c : i
                let z = encoded.mean[from] + exp(0.5 * encoded.logvar[from]) * noise.normal()
                #expect(abs(sample[i] - (z - 0.25) * 0.7) < 1e-4)
            }
            let later = try dataset.sample(
                index, flipped: flipped, key: SampleKey(seed: 3, step: 18, sample: key.sample))
            #expect(later != sample)
        }
    }

    private func encode(_ image: Image, _ firstStage: FirstStage) throws -> (mean: [Float], logvar: [Float]) {
        let encoded = try image.floats().withUnsafeBufferPointer {
            try firstStage.encode($0, batch: 1, height: 16, width: 16)
        }
        return (encoded.mean, try #require(encoded.logVariance))
    }

    @Test func latentsDoNotDependOnTheBatch() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"))
        var samples: [[Float]] = []
        for batch in [1, 3, 8] {
            var work = options(
                "synthetic-faces:13", scratch.file("out\(batch)"), firstStage: scratch.file("vae"))
            work.batch = batch
            try prepareAlone(work)
            let dataset = try LatentDataset(PreparedFolder(work.output))
            samples.append(try (0..<13).flatMap { try dataset.sample($0, key: firstKey) })
        }
        for other in samples.dropFirst() {
            #expect(zip(samples[0], other).allSatisfy { abs($0 - $1) < 1e-4 })
        }
    }

    /// The measured standard deviation is that of posterior samples, and scaling them by 1/std yields unit
    /// variance.
    @Test func measuredScalingFactorGivesUnitVariance() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"), scalingFactor: 100)
        let work = options("synthetic-faces:24", scratch.file("out"), firstStage: scratch.file("vae"))
        let summary = try prepareAlone(work)
        let measured = summary.manifest.statistics.scalingFactor
        let dataset = try LatentDataset(PreparedFolder(work.output), scalingFactor: measured)
        var values: [Double] = []
        for index in 0..<24 {
            for step in 0..<16 {
                let key = SampleKey(seed: 0, step: UInt64(step), sample: UInt64(index))
                values += try dataset.sample(index, key: key).map(Double.init)
            }
        }
        let mean = values.reduce(0, +) / Double(values.count)
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
        #expect(abs(variance - 1) < 0.03)
        #expect(abs(mean - summary.manifest.statistics.mean * measured) < 0.03)

        let warning = try #require(summary.scalingWarning)
        #expect(warning.contains("scaling_factor is 100"))
        try writeAutoencoder(to: scratch.file("vae"), scalingFactor: measured)
        let matched = try prepareAlone(
            options("synthetic-faces:24", scratch.file("out2"), firstStage: scratch.file("vae")))
        #expect(matched.scalingWarning == nil)
    }

    @Test func anotherFirstStageIsRefused() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"), seed: 1)
        try writeAutoencoder(to: scratch.file("other"), seed: 2)
        let work = options("synthetic-faces:9", scratch.file("out"), firstStage: scratch.file("vae"))
        try prepareAlone(work)
        let data = DataOptions(path: work.output, imageSize: 16)
        let same = try FirstStage(folder: ModelFolder(scratch.file("vae")))
        let other = try FirstStage(folder: ModelFolder(scratch.file("other")))
        _ = try openTrainingDataset(data, firstStage: same)
        #expect(
            datasetError(.mismatch) { _ = try openTrainingDataset(data, firstStage: other) }
                .contains("a different first stage"))
        #expect(
            datasetError(.mismatch) { _ = try openTrainingDataset(data, firstStage: nil) }
                .contains("set first_stage.path"))

        let pixels = options("synthetic-faces:9", scratch.file("pixels"))
        try prepareAlone(pixels)
        #expect(
            datasetError(.mismatch) {
                _ = try openTrainingDataset(DataOptions(path: pixels.output, imageSize: 16), firstStage: same)
            }.contains("holds pixels"))
        #expect(
            datasetError(.mismatch) {
                _ = try openTrainingDataset(
                    DataOptions(path: "synthetic-faces:9", imageSize: 16), firstStage: same)
            }.contains("disttrain prepare"))
        // One folder cannot hold latents of two first stages.
        #expect(
            datasetError(.mismatch) {
                try prepareAlone(
                    options("synthetic-faces:9", work.output, firstStage: scratch.file("other")))
            }.contains("first stage was"))
    }

    @Test func theHashFollowsTheWeightsAndNotTheFile() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("a"), seed: 1, scalingFactor: 1)
        try writeAutoencoder(to: scratch.file("b"), seed: 1, scalingFactor: 2)
        try writeAutoencoder(to: scratch.file("c"), seed: 2, scalingFactor: 1)
        let hashes = try ["a", "b", "c"].map {
            try FirstStage(folder: ModelFolder(scratch.file($0))).weightsHash
        }
        #expect(hashes[0] == hashes[1] && hashes[0] != hashes[2])
    }

    @Test func vqLatentsHaveNoNoise() throws {
        let scratch = try ScratchFolder()
        try writeVQModel(to: scratch.file("vq"))
        let work = options("synthetic-faces:9", scratch.file("out"), firstStage: scratch.file("vq"))
        let summary = try prepareAlone(work)
        #expect(!summary.manifest.hasPosterior && summary.manifest.channels == 3)
        let firstStage = try FirstStage(folder: ModelFolder(scratch.file("vq")))
        let dataset = try openTrainingDataset(
            DataOptions(path: work.output, imageSize: 16), firstStage: firstStage)
        let image = SyntheticFaces(seed: 0).draw(8, size: 16).floats()
        let latent = try image.withUnsafeBufferPointer {
            try firstStage.encode($0, batch: 1, height: 16, width: 16).mean
        }
        let a = try dataset.sample(8, key: firstKey)
        let b = try dataset.sample(8, key: SampleKey(seed: 0, step: 9, sample: 9))
        #expect(a == b)
        #expect(zip(a, latent).allSatisfy { abs($0 - $1 * firstStage.scalingFactor) < 1e-5 })
    }

    @Test func damagedFoldersAreRefused() throws {
        let scratch = try ScratchFolder()
        try writeAutoencoder(to: scratch.file("vae"))
        let work = options("synthetic-faces:20", scratch.file("out"), firstStage: scratch.file("vae"))
        try prepareAlone(work)
        let shard = scratch.file("out/shard-00001.safetensors")
        let whole = try bytes(shard)

        try truncate(shard, by: 1)
        #expect(
            datasetError(.damaged) { _ = try PreparedFolder(work.output) }
                .contains("shard-00001.safetensors: \(whole.count - 1) bytes, expected \(whole.count)"))
        try FileManager.default.removeItem(atPath: shard)
        #expect(datasetError(.damaged) { _ = try PreparedFolder(work.output) }.contains("No such file"))
        // The right size, but invalid content.
        try Data(count: whole.count).write(to: URL(fileURLWithPath: shard))
        #expect(datasetError(.damaged) { _ = try PreparedFolder(work.output) }.contains("shard-00001"))
        try whole.write(to: URL(fileURLWithPath: shard))
        _ = try PreparedFolder(work.output)

        let manifest = scratch.file("out/manifest.json")
        let text = String(decoding: try bytes(manifest), as: UTF8.self)
        for (found, put, expected) in [
            ("\"format_version\": 1", "\"format_version\": 9", "format version 9"),
            ("\"count\": 20", "\"count\": 21", "contradict"),
            ("\"height\": 8", "\"height\": \"x\"", "height is a string"),
            ("\"size\": 16", "\"size\": 0", "are out of range"),
            ("{", "", "not valid JSON"),
        ] {
            let range = try #require(text.range(of: found))
            try text.replacingCharacters(in: range, with: put)
                .write(toFile: manifest, atomically: true, encoding: .utf8)
            #expect(datasetError { _ = try PreparedFolder(work.output) }.contains(expected))
        }
        #expect(
            datasetError(.inaccessible) { _ = try PreparedFolder(scratch.file("none")) }.contains("no such"))
    }
}
