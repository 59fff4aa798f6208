import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

@Suite struct DataImageDatasetTests {
    @Test func drawnFacesAreReadAsPixels() throws {
        let dataset = ImageDataset(syntheticFaces: 5, size: 16, seed: 4)
        #expect(dataset.count == 5 && hasShape(dataset, 16, 16, 3))
        for index in 0..<5 {
            let image = SyntheticFaces(seed: 4).draw(index, size: 16)
            // Twice: generated, then from the cache.
            for _ in 0..<2 {
                #expect(try dataset.sample(index, key: firstKey) == image.floats())
                #expect(
                    try dataset.sample(index, flipped: true, key: firstKey)
                        == image.flippedHorizontally().floats())
            }
        }
    }

    @Test func aFullCacheChangesNothing() throws {
        let scratch = try ScratchFolder()
        try writeFaces(6, to: try scratch.makeFolder("faces"))
        let source = try openImageSource(scratch.file("faces"))
        let transform = ImageTransform(size: 12, filter: .area)
        let cached = ImageDataset(source, transform: transform)
        let partly = ImageDataset(source, transform: transform, cacheBytes: 2 * 3 * 12 * 12)
        #expect(cached.fingerprint == partly.fingerprint)
        for index in [0, 5, 1, 5, 0] {
            let expected = transform.apply(try source.image(at: index)).floats()
            #expect(try cached.sample(index, key: firstKey) == expected)
            #expect(try partly.sample(index, key: firstKey) == expected)
        }
    }

    @Test func fingerprintsFollowContentAndTransform() {
        let base = ImageDataset(syntheticFaces: 5, size: 16, seed: 4).fingerprint
        #expect(base == ImageDataset(syntheticFaces: 5, size: 16, seed: 4).fingerprint)
        #expect(base != ImageDataset(syntheticFaces: 6, size: 16, seed: 4).fingerprint)
        #expect(base != ImageDataset(syntheticFaces: 5, size: 24, seed: 4).fingerprint)
        #expect(base != ImageDataset(syntheticFaces: 5, size: 16, seed: 5).fingerprint)
    }

    @Test func aBadImageIsNamed() throws {
        let scratch = try ScratchFolder()
        let faces = try scratch.makeFolder("faces")
        try writeFaces(3, to: faces)
        try truncate("\(faces)/001.png", by: 30)
        let dataset = try openTrainingDataset(DataOptions(path: faces, imageSize: 16), firstStage: nil)
        _ = try dataset.sample(0, key: firstKey)
        let message = datasetError(.badImages) { _ = try dataset.sample(1, key: firstKey) }
        #expect(message.contains("001.png") && message.contains("--skip-bad"))
    }

    @Test func sourcesAreOpenedByName() throws {
        let faces = try openTrainingDataset(
            DataOptions(path: "synthetic-faces:7:3", imageSize: 16), firstStage: nil)
        #expect(faces.count == 7)
        #expect(
            try faces.sample(2, key: firstKey) == SyntheticFaces(seed: 3).draw(2, size: 16).floats())
        let scratch = try ScratchFolder()
        #expect(
            datasetError(.inaccessible) {
                _ = try openTrainingDataset(
                    DataOptions(path: scratch.file("none"), imageSize: 16), firstStage: nil)
            }.contains("none"))
    }
}
