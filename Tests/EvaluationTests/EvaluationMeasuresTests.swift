import Communication
import Evaluation
import FileFormats
import Foundation
import Support
import TensorCore
import Testing
import TestSupport

/// Compares the metrics with pytorch-fid, torch-fidelity and prdc: Fixtures/evaluation/make_evaluation.py.
@Suite struct EvaluationMeasuresTests {
    static let folder = fixturePath("evaluation")

    private let alone = Communicator()
    private let samples: FeatureMatrix
    private let reference: FeatureMatrix
    private let golden: JSONValue

    init() throws {
        let file = try SafetensorsFile(path: "\(Self.folder)/features.safetensors")
        samples = FeatureMatrix(try file.floats(of: "samples"), count: 100, dimension: 24)
        reference = FeatureMatrix(try file.floats(of: "reference"), count: 130, dimension: 24)
        let bytes = try Data(contentsOf: URL(filePath: "\(Self.folder)/measures.json"))
        golden = try JSONValue(parsing: [UInt8](bytes)[...])
    }

    private func number(_ keys: String...) throws -> Double {
        let value = keys.reduce(golden) { $0[$1] ?? .null }.doubleValue
        return try #require(value)
    }

    private func first(_ count: Int, of features: FeatureMatrix) throws -> FeatureMatrix {
        FeatureMatrix(try features.doubles(0..<count).map { Float($0) }, count: count, dimension: 24)
    }

    @Test func frechetDistance() throws {
        let (a, b) = (
            try FeatureStatistics(of: samples, alone), try FeatureStatistics(of: reference, alone)
        )
        let expected = try number("frechet")
        #expect(abs(try #require(a.frechetDistance(to: b)) / expected - 1) < 1e-9)
        #expect(abs(try #require(b.frechetDistance(to: a)) / expected - 1) < 1e-9)
        #expect(
            abs(try #require(a.frechetDistance(to: a))) < 1e-6 * a.covariance.reduce(0) { max($0, $1) } * 24)
    }

    /// Fewer images than dimensions: both covariances are singular, so the square root of their product is
    /// not stable.
    @Test func frechetDistanceOfFew() throws {
        let a = try FeatureStatistics(of: first(9, of: samples), alone)
        let b = try FeatureStatistics(of: first(15, of: reference), alone)
        let expected = try number("frechet_of_few")
        #expect(abs(try #require(a.frechetDistance(to: b)) / expected - 1) < 1e-6)
    }

    @Test func valuesThatAreNoNumbersHaveNoDistance() throws {
        var a = try FeatureStatistics(of: samples, alone)
        let b = a
        a.covariance[5] = .nan
        #expect(a.frechetDistance(to: b) == nil && b.frechetDistance(to: a) == nil)
    }

    @Test func kernelDistance() throws {
        let estimate = KernelDistance.estimate(
            try samples.doubles(0..<100), try reference.doubles(0..<100), dimension: 24)
        let expected = try number("mmd")
        #expect(abs(estimate - expected) < 1e-9)
        let measured = try KernelDistance(samples, reference, seed: 3, alone)
        #expect(measured.low < measured.mean && measured.mean < measured.high)
        #expect(measured.low < estimate && estimate < measured.high)
        #expect(try KernelDistance(samples, reference, seed: 3, alone) == measured)
        #expect(try KernelDistance(samples, reference, seed: 4, alone) != measured)
    }

    @Test func neighbours() throws {
        let found = try NeighbourMeasures(samples: samples, reference: reference, alone)
        let manifolds = found.manifolds
        for (name, value) in [
            ("precision", manifolds.precision), ("recall", manifolds.recall), ("density", manifolds.density),
            ("coverage", manifolds.coverage),
        ] {
            let expected = try number("prdc", name)
            #expect(abs(value - expected) < 1e-9, "\(name)")
        }
        let mean = try number("mean_pairwise_distance")
        #expect(abs(found.meanPairwise / mean - 1) < 1e-9)
        let nearest = golden["nearest"]?.arrayValue?.compactMap { $0.intValue }
        #expect(found.nearest == nearest)
        let distances = golden["nearest_distances"]?.arrayValue?.compactMap { $0.doubleValue } ?? []
        #expect(distances.count == 100)
        for (a, b) in zip(found.nearestDistances, distances) { #expect(abs(a - b) < 1e-6) }
        #expect(found.ownNearest[40] < 1e-6 && found.ownNearest[41] < 1e-6)
    }

    /// If a mirrored sample is closer to a training image, that image is its nearest; no other value changes.
    @Test func mirroredSamples() throws {
        let plain = try NeighbourMeasures(samples: samples, reference: reference, alone)
        // The mirrored sample 8 equals the reference's image 3; the others are far away.
        var values = [Float](repeating: 1e3, count: samples.count * samples.dimension)
        values.replaceSubrange(
            8 * samples.dimension..<9 * samples.dimension,
            with: try reference.doubles(3..<4).map { Float($0) })
        let mirrored = FeatureMatrix(values, count: samples.count, dimension: samples.dimension)
        var found = try NeighbourMeasures(
            samples: samples, mirrored: mirrored, reference: reference, alone)
        #expect(found.isMirrored.indices.filter { found.isMirrored[$0] } == [8])
        #expect(found.nearest[8] == 3 && found.nearestDistances[8] < 1e-3)
        (found.nearest[8], found.nearestDistances[8]) = (plain.nearest[8], plain.nearestDistances[8])
        found.isMirrored[8] = false
        #expect(found == plain)
    }

    /// The results are bitwise identical for any number of threads; Tests/Integration compares numbers of
    /// ranks.
    @Test func threadsChangeNothing() throws {
        let threads = Processor.threads
        defer { Processor.setThreads(threads) }
        var found: [NeighbourMeasures] = []
        var statistics: [FeatureStatistics] = []
        for count in [1, 3] {
            Processor.setThreads(count)
            found.append(try NeighbourMeasures(samples: samples, reference: reference, alone))
            statistics.append(try FeatureStatistics(of: samples, alone))
        }
        #expect(found[0] == found[1] && statistics[0] == statistics[1])
    }

    @Test(arguments: ["stored", "deflated"]) func npz(_ name: String) throws {
        let read = try FeatureStatistics(npz: "\(Self.folder)/\(name).npz")
        let expected = try FeatureStatistics(of: reference, alone)
        #expect(read.count == 0 && read.dimension == 24)
        for (a, b) in zip(read.mean + read.covariance, expected.mean + expected.covariance) {
            #expect(abs(a - b) < 1e-7)
        }
    }

    /// Changed or missing bytes of the file cause at most a one-line error.
    @Test(arguments: ["stored", "deflated"]) func damagedNpz(_ name: String) throws {
        let whole = [UInt8](try Data(contentsOf: URL(filePath: "\(Self.folder)/\(name).npz")))
        let path = FileManager.default.temporaryDirectory.appending(path: "\(UUID().uuidString).npz").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        var random = CounterRandom(seed: 1, purpose: .test)
        for trial in 0..<400 {
            var bytes = whole
            if trial % 4 == 0 { bytes.removeLast(1 + random.integer(below: bytes.count - 1)) }
            let end = max(0, bytes.count - 300)
            for _ in 0..<1 + trial % 3 {
                // Damage the directory at the end, or a random position.
                let place = trial % 2 == 0 ? random.integer(below: bytes.count) : end
                bytes[min(bytes.count - 1, place + random.integer(below: 300))] = UInt8(
                    random.integer(below: 256))
            }
            try Data(bytes).write(to: URL(filePath: path))
            do {
                let read = try FeatureStatistics(npz: path)
                let isFinite = read.mean.allSatisfy { $0.isFinite }
                #expect(isFinite)
            } catch {
                let line = "\(error)"
                #expect(!line.contains("\n"))
            }
        }
    }
}
